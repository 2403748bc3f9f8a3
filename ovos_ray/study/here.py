"""A study on one machine without Ray: its trials run in a few processes of their own, one worker each.

Trials go seed by seed: an interrupted study has compared everything once before anything twice.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from ovos_ray.errors import ConfigError, OvosError, TrainingError
from ovos_ray.lease import Lease
from ovos_ray.paths import no_imports_from_current_folder
from ovos_ray.run.failure import mark_failed
from ovos_ray.run.here import fit_here
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resume import resume_step
from ovos_ray.study.run_study import run_study
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import SweepResult
from ovos_ray.train.run_folder import RunFolder

if TYPE_CHECKING:  # Windows has no fork servers
    from multiprocessing.context import ForkServerContext, SpawnContext

__all__ = ["run_plain"]

_Record = dict[str, Any]
_ERROR = "error"
_LOOK_S = 1.0
_COMPILER = ("torch._dynamo",)
_FOR_LOGS = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")


@dataclass
class _Child:
    request: RunRequest
    process: BaseProcess
    error: OvosError | None = None


def run_plain(
    space: SearchSpace,
    trials: Sequence[Trial],
    *,
    tags: Mapping[str, str] | None = None,
    watcher: Callable[[_Record], None] | None = None,
    num_processes: int = 1,
    replace: bool = False,
    take_over_same: bool = False,
) -> SweepResult:
    """Runs a study to the end; failing trials are counted, not fatal.

    A trial whose process was killed continues from its checkpoint, `train.max_failures` times.

    Args:
        space: The study.
        trials: From `expand.expand`, with absolute paths.
        tags: More MLflow tags for parent and trials.
        watcher: Called in this process with every progress record; see `run/progress.py`.
        num_processes: Trials at a time, each on `train.num_threads` threads, and with `train.gpus_per_worker` on a
            GPU, which they take in turn.
        replace: See `run_study`.
        take_over_same: See `run_study`.

    Raises:
        ConfigError: A trial has settings that mean nothing, or the study needs Ray Tune.
    """
    if space.scheduler not in ("fifo", "pbt") or space.searcher == "optuna":
        raise ConfigError(
            f"study {space.name}: scheduler = {space.scheduler!r} and searcher = {space.searcher!r} need Ray Tune",
            "run it on Ray, or set scheduler=fifo searcher=random",
        )
    execute = functools.partial(_run_all, num_processes=num_processes)
    return run_study(space, trials, execute, tags=tags, watcher=watcher, replace=replace, take_over_same=take_over_same)


def _run_all(
    _: SearchSpace, __: Sequence[Trial], todo: Mapping[str, RunRequest], lease: Lease, *, num_processes: int
) -> None:
    waiting = deque(sorted(todo.values(), key=lambda request: request.config.seed))
    running, lost = dict[Connection, _Child](), Counter[str]()
    places = itertools.count()
    try:
        while waiting or running:
            lease.check()
            while waiting and len(running) < num_processes:
                connection, child = _start(waiting.popleft(), next(places))
                running[connection] = child
            ready = wait(list(running), timeout=_LOOK_S)
            for connection in [one for one in running if one in ready]:
                record = _receive(connection)
                child = running[connection]
                if record is None:
                    del running[connection]
                    connection.close()
                    child.process.join()
                    if _is_to_continue(child, lost):
                        waiting.appendleft(child.request)
                elif _ERROR in record:
                    child.error = record[_ERROR]
                elif child.request.watcher is not None:
                    child.request.watcher(record)
    finally:
        for child in running.values():
            child.process.terminate()
        for child in running.values():
            child.process.join()


def _start(request: RunRequest, index: int) -> tuple[Connection, _Child]:
    train = request.config.train
    compiles = train.compile or train.gradient_checkpointing
    context = _context((*(_FOR_LOGS if request.config.tracking_uri else ()), *(_COMPILER if compiles else ())))
    receiver, sender = context.Pipe(duplex=False)
    # Watchers stay here: they need not be picklable.
    stage = request.pretraining and dataclasses.replace(request.pretraining, watcher=None)
    unwatched = dataclasses.replace(request, watcher=None, pretraining=stage)
    arguments = (unwatched, index, sender, dict(os.environ))
    process = context.Process(target=_run_one, args=arguments, name=request.config.name, daemon=True)
    with no_imports_from_current_folder():
        process.start()
    sender.close()  # the child's end closes with the child, however it ends
    return receiver, _Child(request, process)


def _context(more: Sequence[str]) -> SpawnContext | ForkServerContext:
    """Returns how trials start: from a process that has imported what they need and computed nothing, so at once.

    Not as copies of this process, as torch's threads do not survive that.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods() or sys.version_info < (3, 11):  # no PYTHONSAFEPATH
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *more])
    return context


def _run_one(request: RunRequest, index: int, sender: Connection, environment: Mapping[str, str]) -> None:
    """Runs one trial in a process of its own; if the parent is gone, its next record ends it."""
    os.environ.clear()  # of when the first trial started
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    try:
        fit_here(dataclasses.replace(request, watcher=sender.send), index=index)
    except Exception as error:
        if isinstance(error, OvosError):
            sender.send({_ERROR: error})
            raise SystemExit(1) from None
        sender.send({_ERROR: TrainingError(f"{type(error).__name__}: {error}")})
        raise


def _receive(connection: Connection) -> _Record | None:
    """Returns the next record, or None when the process has ended, be it in the middle of a record."""
    try:
        record: _Record = connection.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        return None
    return record


def _is_to_continue(child: _Child, lost: Counter[str]) -> bool:
    """Whether an ended process is to be started again, from its checkpoint. If not, and it failed, notes why."""
    request, config = child.request, child.request.config
    if RunFolder.of(config).result() is not None:
        return False
    error = child.error or TrainingError(f"its process ended with exit code {child.process.exitcode}")
    step = resume_step(config)
    if child.error is None and lost[config.name] < config.train.max_failures:
        lost[config.name] += 1
        request.post(step, event=f"{error.message}; continuing from step {step}")
        return True
    mark_failed(request, error)
    return False
