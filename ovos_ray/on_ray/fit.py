"""The training loop under Ray Train: one function per worker, and `fit`, which runs it and survives failures."""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray import PlacementGroupID
from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.train import UserCallback
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.errors import OvosError
from ovos_ray.on_ray.stream import RankStream, StreamSpec, load_plan
from ovos_ray.run.loop import train_run
from ovos_ray.run.out_of_memory import killed_workers
from ovos_ray.run.prepare import RunResult, make_run
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import can_decode_apart, check_fits
from ovos_ray.run.resume import resume_step
from ovos_ray.train.run_folder import RunFolder

__all__ = [
    "check_resources",
    "cluster_resources",
    "fit",
    "free_processors",
    "own_cause",
    "stream_spec",
]


def stream_spec(config: ExperimentConfig) -> StreamSpec:
    """Returns what decides the samples of a configuration."""
    all_labels = config.method.needs_all_labels
    return StreamSpec(config.data, config.seed, config.train.steps, all_labels, config.stop_step)


def fit(request: RunRequest, *, callbacks: Sequence[Any] = ()) -> RunResult:
    """Trains until the last step, or says why not. The same request again continues where the last one stopped.

    Args:
        request: The run. Ray must be initialised.
        callbacks: More `UserCallback`s, such as Tune's.

    Raises:
        OvosError: The run cannot be made as configured; workers' own errors arrive unwrapped.
    """
    return make_run(request, functools.partial(_fit, callbacks=callbacks), check_room=check_resources)


def _fit(request: RunRequest, *, callbacks: Sequence[Any]) -> None:
    config, folder = request.config, RunFolder.of(request.config)
    spec = stream_spec(config)
    plan = load_plan(spec)
    plan.clips(0, 0, config.train.num_workers)
    free_processors(folder)
    launch = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    train = config.train
    resources = {"CPU": train.cpus_per_worker} | ({"GPU": train.gpus_per_worker} if train.gpus_per_worker else {})
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"request": request},
        torch_config=TorchConfig(backend=_backend(train)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=train.num_workers if train.min_workers is None else (train.min_workers, train.num_workers),
            use_gpu=train.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            # Resuming is the checkpoint store's work; a fresh name keeps Ray's own bookkeeping out of it.
            name=f"launch-{launch}",
            storage_path=(folder.storage / "ray").folder,
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures),
            callbacks=[_RetryLostWorkersOnly(request), *callbacks],
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        if (cause := own_cause(error)) is not None:
            raise cause from None
        if any(isinstance(e, RayActorError | WorkerCrashedError | OutOfMemoryError) for e in _within(error)):
            raise killed_workers(config, resume_step(config)) from error
        raise


def _backend(train: TrainConfig) -> str | None:
    """Returns what workers talk over; None leaves it to Ray, which takes NCCL for GPUs."""
    # NCCL refuses two workers on one GPU.
    return "gloo" if 0 < train.gpus_per_worker < 1 and train.num_workers > 1 else None


_GROUP = "placement_group"


def _keep_placement_group(folder: RunFolder) -> None:
    """Notes which processors a run holds, for whoever starts it again."""
    group = ray.util.get_current_placement_group()
    if group is not None:
        folder.storage.write(group.id.hex().encode(), _GROUP)


def free_processors(folder: RunFolder, *, after_s: float = 0) -> None:
    """Gives back what the last launch of a run still holds, of which nothing may be alive any more.

    When a run is lost with its node, Ray moves its reservation to another node and keeps it until the driver ends. When
    it is stopped, Ray Train's watchdog frees it, but a single connection that the dashboard refuses ends the watchdog.

    Args:
        folder: The run's.
        after_s: How long to leave it to that watchdog, in seconds.
    """
    if not folder.storage.exists(_GROUP):
        return
    with suppress(Exception):  # of another cluster, or gone
        group = PlacementGroup(PlacementGroupID.from_hex(folder.storage.read(_GROUP).decode()))
        deadline = time.monotonic() + after_s
        while time.monotonic() < deadline:
            if ray.util.placement_group_table(group).get("state", "REMOVED") == "REMOVED":
                return
            time.sleep(0.5)
        ray.util.remove_placement_group(group)


# A retry mends lost workers and lost connections (torch.distributed raises RuntimeErrors); these it does not.
_LASTING = (TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError, NotImplementedError)

_LAST_MOMENT_S = 2.0


class _RetryLostWorkersOnly(UserCallback):  # type: ignore[misc]  # ray is untyped
    """A wrong configuration, a bad file or a defect stays wrong: such errors are raised at once, not retried."""

    def __init__(self, request: RunRequest) -> None:
        self._request = request

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the error if it lasts; else tells the watcher that the workers start again."""
        for error in worker_exceptions.values():
            if (cause := own_cause(error)) is not None:
                raise cause
            base = getattr(error, "_base_exc", error)
            if isinstance(base, _LASTING):
                raise base
        rank, error = next(iter(worker_exceptions.items()))
        step = resume_step(self._request.config)
        what = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        self._request.post(step, event=f"worker {rank} was lost ({what[0][:200]}); restarting from step {step}")
        # Where a trial is ended, the workers die a moment before this process does. What it reserved for new ones in
        # that moment nobody would give back.
        time.sleep(_LAST_MOMENT_S)


def own_cause(error: BaseException | None) -> OvosError | None:
    """Returns the project's own error at the root of what Ray raised, or None."""
    return next((e for e in _within(error) if isinstance(e, OvosError)), None)


def _within(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and every error that Ray or Python has wrapped in it."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        names = ("cause", "_base_exc", "controller_failure", "health_check_failure")
        nested = [getattr(current, name, None) for name in names]
        failures = getattr(current, "worker_failures", None)
        nested += list(failures.values()) if isinstance(failures, dict) else []
        todo += [current.__cause__, current.__context__, *(n for n in nested if isinstance(n, BaseException))]


def check_resources(config: ExperimentConfig) -> None:
    """Checks that the cluster can ever run this configuration.

    Raises:
        ResourceError: It cannot; the message shows the arithmetic.
    """
    check_fits(config.train, _living_nodes(), _autoscaler_ceiling())


def _living_nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def cluster_resources() -> dict[str, float]:
    """Returns `CPU`, `GPU` and so on of the cluster, as large as it may become."""
    have: dict[str, float] = ray.cluster_resources()
    ceiling = _autoscaler_ceiling()
    return {name: max(have.get(name, 0), ceiling.get(name, 0)) for name in {*have, *ceiling}}


def _autoscaler_ceiling() -> dict[str, float]:
    """What an autoscaler may grow the cluster to; empty for a cluster of fixed size."""
    from ray._private.state import state

    ceiling: dict[str, float] | None = state.get_max_resources_from_cluster_config()
    return dict(ceiling or {})


def rank_stream(config: ExperimentConfig, rank: int, world_size: int) -> RankStream:
    """Returns a worker's stream from the last complete checkpoint on; called by all ranks together."""
    start_step = resume_step(config) if rank == 0 else None
    if world_size > 1:  # one of them looks, so that all start from the same step
        start_step = broadcast_from_rank_zero(start_step)
    apart = can_decode_apart(_living_nodes(), ray.util.placement_group_table().values())
    own_cpus = None if apart else max(1, int(config.train.cpus_per_worker))
    return RankStream(stream_spec(config), rank, world_size, start_step or 0, own_cpus)


def _train_worker(arguments: dict[str, Any]) -> None:
    context, request = ray.train.get_context(), arguments["request"]
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        _keep_placement_group(RunFolder.of(request.config))
    try:
        train_run(
            request,
            rank_stream(request.config, rank, world_size),
            rank=rank,
            world_size=world_size,
            device=ray.train.torch.get_device(),
            report=ray.train.report,
        )
    except Exception as error:
        if (cause := own_cause(error)) is not None:
            raise cause from None
        raise
