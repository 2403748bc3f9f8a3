"""One run in this process, without Ray: the same loop, batches and run folder as `on_ray.fit.fit`."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.data.clips.batches import LocalStream
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import ResourceError
from ovos_ray.evaluate.evaluation import check_benchmarks
from ovos_ray.run.checks import check_config
from ovos_ray.run.loop import RunRequest, Worker
from ovos_ray.run.pretraining import alone
from ovos_ray.run.resume import resume_step
from ovos_ray.train.run_folder import RunFolder

__all__ = ["fit_here", "local_stream"]


def local_stream(config: ExperimentConfig, start_step: int = 0) -> LocalStream:
    """Returns all batches of a run from a step on, decoded in this process."""
    indices = [ShardIndex.load(folder) for folder in config.data.shards]
    plan = Plan(indices, config.data, seed=config.seed, steps=config.train.steps)
    decoder = ClipDecoder(config.data, all_labels=config.method.name == "supervised")
    return LocalStream(plan, decoder, start_step, stop_step=config.stop_step)


def fit_here(request: RunRequest, *, index: int = 0) -> None:
    """Trains until the last step with one worker; nothing is done if that was finished before.

    The same request again continues from the last checkpoint, also one that a run on Ray has written, and the other
    way round.

    Args:
        request: The run. It takes a GPU if its workers ask for one or for a part of one.
        index: Which of the machine's GPUs, counted round and round.

    Raises:
        OvosError: The run cannot be made as configured, or its data cannot be read.
    """
    config = request.config
    check_config(config)
    folder = RunFolder.of(config)
    folder.claim(config)
    if folder.result() is not None:
        return
    check_benchmarks(config.evaluation)
    if request.pretraining is not None:
        fit_here(request.pretraining, index=index)
    with alone(folder, request.post) if request.shared else nullcontext():
        if folder.result() is None:  # else finished by whom this one waited for
            stream = local_stream(config, resume_step(config))
            Worker(request, stream, device=_device(config.train, index)).run()


def _device(train: TrainConfig, index: int) -> torch.device:
    if not train.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ResourceError(
            f"train.gpus_per_worker={train.gpus_per_worker:g}, and this machine has no GPU that torch can use",
            "set train.gpus_per_worker=0, or run it where one is",
        )
    device = torch.device("cuda", index % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
