"""What to say when a run needs more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ResourceError

__all__ = ["killed_workers", "naming_what_to_lower", "out_of_memory"]


_LESS = (
    "lower data.batch_size, data.crop_size, data.clip_length or data.max_objects, raise train.num_workers, "
    "or set train.gradient_checkpointing=true"
)


@contextmanager
def naming_what_to_lower(config: ExperimentConfig) -> Iterator[None]:
    """Turns torch's errors of running out of memory, on a GPU or a CPU, into one that names the settings to lower.

    Raises:
        ResourceError: Memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise out_of_memory(config, str(error)) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise out_of_memory(config, str(error)) from error


def out_of_memory(config: ExperimentConfig, details: str) -> ResourceError:
    """Returns the error that names the settings to lower, and quotes the first line of what was seen."""
    quoted = (details.strip().splitlines() or ["no details"])[0]
    return ResourceError(f"out of memory with {_size(config)} ({quoted})", _LESS)


def killed_workers(config: ExperimentConfig, step: int) -> ResourceError:
    """Returns the error for workers that were killed from outside again and again, which says nothing of the reason.

    `step` is that of the newest checkpoint.
    """
    times = config.train.max_failures + 1
    return ResourceError(
        f"a training worker was killed from outside {times} time{'s' if times > 1 else ''}, the last time after the "
        f"checkpoint of step {step}. Most often the system does so because memory ran out: with {_size(config)}",
        f"`dmesg` or the cluster's log tells; {_LESS}; the same command goes on from step {step}",
    )


def _size(config: ExperimentConfig) -> str:
    data, clips = config.data, config.train.clips_per_worker(config.data.batch_size)
    return (
        f"{clips} clips of {data.clip_length} frames at {data.crop_size} pixels "
        f"and {data.max_objects} objects per worker"
    )
