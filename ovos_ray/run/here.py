"""One run in this process, without Ray: the same loop, batches and run folder as `on_ray.fit.fit`."""

from __future__ import annotations

import functools

import torch

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.data.clips.batches import LocalStream
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Plan
from ovos_ray.run.loop import train_run
from ovos_ray.run.prepare import RunResult, make_run
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import check_gpu
from ovos_ray.run.resume import Start

__all__ = ["fit_here", "local_stream"]


def local_stream(config: ExperimentConfig, start_step: int = 0) -> LocalStream:
    """Returns all batches of a run from a step on, decoded in this process."""
    plan = Plan.load(config.data, seed=config.seed, steps=config.train.steps)
    return LocalStream(plan, ClipDecoder.of(config), start_step, stop_step=config.stop_step)


def fit_here(request: RunRequest, *, index: int = 0) -> RunResult:
    """Trains until the last step with one worker; nothing is done if that was finished before.

    The same request again continues from the last checkpoint, also one that a run on Ray has written, and the other
    way round.

    Args:
        request: The run. It takes a GPU if its workers ask for one or for a part of one.
        index: Which of the machine's GPUs, counted round and round.

    Raises:
        OvosError: The run cannot be made as configured, or its data cannot be read.
    """
    return make_run(request, functools.partial(_train_here, index=index))


def _train_here(request: RunRequest, *, index: int) -> None:
    config = request.config
    device = _device(config.train, index)
    start = Start(config)
    train_run(request, local_stream(config, start.step), device=device, start=start)


def _device(train: TrainConfig, index: int) -> torch.device:
    if not train.gpus_per_worker:
        return torch.device("cpu")
    check_gpu(train)
    device = torch.device("cuda", index % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
