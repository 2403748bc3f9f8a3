"""One run in this process, without Ray: the same loop, batches and run folder as `train.loop.fit`."""

from __future__ import annotations

from contextlib import nullcontext

from ovos_ray.config import ExperimentConfig
from ovos_ray.data.decode import ClipDecoder
from ovos_ray.data.local import LocalStream
from ovos_ray.data.plan import Plan
from ovos_ray.data.shards import ShardIndex
from ovos_ray.evaluate.evaluation import check_benchmarks
from ovos_ray.train.checks import check_config
from ovos_ray.train.pretraining import alone
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.worker import RunRequest, Worker

__all__ = ["fit_here", "local_stream"]


def local_stream(config: ExperimentConfig, start_step: int = 0) -> LocalStream:
    """Returns all batches of a run from a step on, decoded in this process."""
    indices = [ShardIndex.load(folder) for folder in config.data.shards]
    plan = Plan(indices, config.data, seed=config.seed, steps=config.train.steps)
    return LocalStream(plan, ClipDecoder(config.data, all_labels=config.method.name == "supervised"), start_step)


def fit_here(request: RunRequest) -> None:
    """Trains until the last step, on the CPU and with one worker; nothing is done if that was finished before.

    The same request again continues from the last checkpoint, also one that a run on Ray has written, and the other
    way round.

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
        fit_here(request.pretraining)
    with alone(folder, request.post) if request.shared else nullcontext():
        if folder.result() is None:  # else finished by whom this one waited for
            Worker(request, local_stream(config, folder.checkpoints().latest() or 0)).run()
