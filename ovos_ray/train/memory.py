"""What to say when a run needs more memory than there is."""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ResourceError

__all__ = ["out_of_memory"]


def out_of_memory(config: ExperimentConfig, details: str) -> ResourceError:
    """Returns the error that names the settings to lower.

    Args:
        config: Of the run.
        details: What was seen; its first line is quoted.
    """
    data, workers = config.data, config.train.num_workers
    quoted = (details.strip().splitlines() or ["no details"])[0]
    return ResourceError(
        f"out of memory with {data.batch_size // workers} clips of {data.clip_length} frames at {data.crop_size} "
        f"pixels and {data.max_objects} objects per worker ({quoted})",
        "lower data.batch_size, data.crop_size, data.clip_length or data.max_objects, raise train.num_workers, "
        "or set train.gradient_checkpointing=true",
    )
