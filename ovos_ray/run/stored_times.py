"""What runs cost on a GPU that is not here: step times that were measured once (`benchmarks/README.md`), scaled."""

from __future__ import annotations

import math

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ConfigError
from ovos_ray.run.estimate import Cost, num_parameters

__all__ = ["GPUS", "describe_stored", "stored_cost"]

_STEPS = {"h100": {"xmem": (0.100, 4426), "stcn": (0.109, 4063)}}
"""By GPU and network: seconds and peak MiB of a 2-step step of the clips below, bfloat16, 2 objects."""

_CLIPS, _FRAMES, _SIDE = 4, 8, 384
_STRATEGIES = {"2-step": 1.0, "T-step": 1.95, "1-step": 0.84}
"""Relative time of a step, one-shot with a predicted reference; from the same document's table of an H200."""

GPUS = tuple(_STEPS)
"""GPUs with stored step times."""


def describe_stored(gpu: str) -> str:
    """Returns what the prices for a GPU are scaled from.

    Raises:
        ConfigError: There are no times of it.
    """
    steps = ", ".join(f"{network} {seconds:.3f} s" for network, (seconds, _) in _times(gpu).items())
    return (
        f"scaled by clips, frames and pixels from stored steps of one {gpu.upper()} ({steps} for {_CLIPS} clips of "
        f"{_FRAMES} frames at {_SIDE}x{_SIDE}, 2-step, bfloat16), not measured here"
    )


def stored_cost(config: ExperimentConfig, gpu: str) -> Cost | None:
    """Returns the price of a run on a GPU, or None where no step of its network and method is stored.

    Raises:
        ConfigError: There are no times of this GPU, or the run does not ask for one.
    """
    times, method = _times(gpu), config.method
    if not config.train.gpus_per_worker:
        raise ConfigError(
            f"train.gpus_per_worker=0 trains on a CPU, and --on {gpu} prices a GPU",
            "add train.gpus_per_worker=1, or leave --on out",
        )
    plain = method.name == "one_shot" and method.reference == "predicted" and method.backward in _STRATEGIES
    if config.network.name not in times or not plain or config.train.precision == "float32":
        return None
    seconds, mib = times[config.network.name]
    clips = config.train.clips_per_worker(config.data.batch_size)
    work = clips / _CLIPS * config.data.clip_length / _FRAMES * (config.data.crop_size / _SIDE) ** 2
    step = seconds * work * _STRATEGIES[method.backward]
    memory = mib * work / 1024 if method.backward == "2-step" else math.nan  # T-step's graph was not measured
    return Cost(memory, config.train.steps * step, f"cuda, a stored {gpu.upper()}", num_parameters(config))


def _times(gpu: str) -> dict[str, tuple[float, int]]:
    if gpu not in _STEPS:
        raise ConfigError(f"no step times of {gpu!r} are stored", f"choose one of {', '.join(GPUS)}")
    return _STEPS[gpu]
