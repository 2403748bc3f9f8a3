"""A run of several workers: a group of processes under Ray Train, which starts lost ones again."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, TimeoutError
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch.distributed
from ray import PlacementGroupID
from ray.train import UserCallback
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.on_ray.causes import lasting_cause, own_cause, post_restart, was_killed
from ovos_ray.on_ray.leaving import leaving_nodes, tell_runs_to_end, this_node_id, told_to_end
from ovos_ray.on_ray.room import processors, say_what_is_held, this_node
from ovos_ray.on_ray.scoring import ScoringTasks
from ovos_ray.on_ray.stream import RankStream, stream_spec
from ovos_ray.run.loop import train_run
from ovos_ray.run.out_of_memory import killed_workers
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import decoders_of_worker
from ovos_ray.run.resume import Start, marked_step
from ovos_ray.train.run_folder import RunFolder

__all__ = ["free_processors", "holds_processors", "rank_stream", "train_on_workers"]


_SILENCE_S = 60.0
"""Ray Train waits as long for processors that others hold, without a word, and then asks for them anew."""
_LAST_CHECKPOINT_S = 20.0
"""Workers look every five seconds whether they are told to end."""


def train_on_workers(request: RunRequest, *, callbacks: Sequence[Any] = ()) -> None:
    """Trains a run on workers of Ray Train, from its last checkpoint to its result.

    Args:
        request: The run.
        callbacks: More `UserCallback`s, such as Tune's.

    Raises:
        OvosError: What a worker raised, unwrapped.
        ResourceError: Workers were killed more than `train.max_failures` times.
    """
    config, folder = request.config, RunFolder.of(request.config)
    free_processors([folder])
    launch = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    train = config.train
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"request": request},
        torch_config=TorchConfig(backend=_backend(train)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=train.num_workers if train.min_workers is None else (train.min_workers, train.num_workers),
            use_gpu=train.gpus_per_worker > 0,
            resources_per_worker=processors(config),
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
        with _saying_what_is_held(request):
            _fit(trainer, request)
    except Exception as error:
        if (cause := own_cause(error)) is not None:
            raise cause from None
        if was_killed(error):
            raise killed_workers(config, marked_step(config)) from error
        raise


def _fit(trainer: TorchTrainer, request: RunRequest) -> None:
    """Trains. After Ctrl-C the workers write down where they are first, unless it comes again.

    In a thread of its own, since Ray Train's way to heed Ctrl-C aborts a run as it is. A trial of a study is in one
    already, and the study tells it.
    """
    if threading.current_thread() is not threading.main_thread():
        trainer.fit()
        return
    outcome: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=fit, name="train", daemon=True).start()
    try:
        outcome.result()
    except KeyboardInterrupt:
        with suppress(Exception):  # the storage or the cluster may be away, which is no failure of the run
            _end_workers(request, outcome)
        raise


def _end_workers(request: RunRequest, outcome: Future[None]) -> None:
    """Waits for one more checkpoint, and takes their processors from the workers."""
    folder, step = RunFolder.of(request.config), marked_step(request.config)
    word = tell_runs_to_end()  # for as long as it is kept
    try:
        if holds_processors(folder):
            request.post(step, event="interrupted; waits some seconds for a checkpoint, unless it is once more")
            deadline = time.monotonic() + _LAST_CHECKPOINT_S
            while marked_step(request.config) == step and time.monotonic() < deadline and not outcome.done():
                time.sleep(0.2)
    finally:
        free_processors([folder])
        with suppress(TimeoutError):
            outcome.exception(_LAST_CHECKPOINT_S)  # Ray Train learns that they are gone
        del word


@contextmanager
def _saying_what_is_held(request: RunRequest) -> Iterator[None]:
    """Tells the watcher what a run waits for: at once, or a minute later if another one began at the same moment."""

    def later() -> None:
        with suppress(Exception):  # a message is not worth a run
            if not holds_processors(RunFolder.of(request.config)):
                say_what_is_held(request)

    timer = threading.Timer(_SILENCE_S, later)
    timer.daemon = True
    if not say_what_is_held(request):
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


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


def holds_processors(folder: RunFolder) -> bool:
    """Whether the workers of a run have their processors now, and have begun."""
    if not folder.storage.exists(_GROUP):
        return False
    group = ray.util.placement_group_table().get(folder.storage.read(_GROUP).decode(), {})
    return bool(group.get("state") == "CREATED")


def free_processors(folders: Sequence[RunFolder], *, after_s: float = 0) -> None:
    """Gives back the processors that the last launches of runs still hold, though none of their processes lives.

    When a run is lost with its node, Ray moves its reservation to another node and keeps it until the driver ends. When
    a run is stopped, Ray Train's watchdog frees it, unless the dashboard has once refused the watchdog a connection.

    Args:
        folders: The runs'.
        after_s: How many seconds to leave them to that watchdog first.
    """
    held = {f.storage.read(_GROUP).decode() for f in folders if f.storage.exists(_GROUP)}
    deadline = time.monotonic() + after_s
    while held and time.monotonic() < deadline:
        groups = ray.util.placement_group_table()
        held = {key for key in held if groups.get(key, {}).get("state", "REMOVED") != "REMOVED"}
        time.sleep(0.5)
    for key in held:
        with suppress(Exception):  # of another cluster, or gone
            ray.util.remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(key)))


_LAST_MOMENT_S = 2.0


class _RetryLostWorkersOnly(UserCallback):  # type: ignore[misc]  # ray is untyped
    """Raises at once what would fail again: a wrong configuration, a bad file, a defect. Lost workers are retried."""

    def __init__(self, request: RunRequest) -> None:
        self._request = request

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the error if it lasts; else tells the watcher that the workers start again."""
        for error in worker_exceptions.values():
            if (cause := lasting_cause(error)) is not None:
                raise cause
            if told_to_end():
                raise error
        post_restart(self._request, *next(iter(worker_exceptions.items())))
        # When a trial is ended, its workers die a moment before this process does. If it reserved processors for new
        # workers in that moment, nobody would give them back.
        time.sleep(_LAST_MOMENT_S)


def rank_stream(config: ExperimentConfig, rank: int, world_size: int, start: Start | None) -> RankStream:
    """Returns a worker's stream. All ranks call this together; rank 0 alone gives `start`, from which all go on."""
    step = 0 if start is None else start.step
    if world_size > 1:  # one of them looks, so that all start from the same step
        step = broadcast_from_rank_zero(step)
    decoders = decoders_of_worker(config, this_node())
    return RankStream(stream_spec(config), rank, world_size, step, decoders, config.train.stall_timeout_s)


def _nodes_of_ranks(world_size: int) -> list[str]:
    """Returns the ids of the nodes that all ranks run on; called by all together."""
    nodes = [this_node_id()] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(nodes, this_node_id())
    return nodes


def _train_worker(arguments: dict[str, Any]) -> None:
    context, request = ray.train.get_context(), arguments["request"]
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        _keep_placement_group(RunFolder.of(request.config))
    start = Start(request.config) if rank == 0 else None
    try:
        stream = rank_stream(request.config, rank, world_size, start)
        with leaving_nodes(_nodes_of_ranks(world_size)) as warning, ScoringTasks(stream.num_decoders) as scorers:
            train_run(
                request,
                stream,
                rank=rank,
                world_size=world_size,
                device=ray.train.torch.get_device(),
                report=ray.train.report,
                start=start,
                warning=warning,
                scorers=scorers,
            )
    except Exception as error:
        if (cause := own_cause(error)) is not None:
            raise cause from None
        raise
