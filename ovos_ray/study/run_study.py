"""What happens to every study, whatever executes its runs: checks, pretrainings first, then what is not finished.

Processes of this machine (`study.here`), Ray Tune (`on_ray.study`): what executes a set of runs is handed in. What a
study has computed lies in its trials' folders (`result.json`, checkpoints). The same study run again therefore skips
finished trials and continues the others, whichever way it was begun, and also after the driver was lost.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import HeldError
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.lease import Lease
from ovos_ray.run.checks import check_config
from ovos_ray.run.failure import forget_failure
from ovos_ray.run.lock import hold, run_lock
from ovos_ray.run.pin import pin_content
from ovos_ray.run.pretraining import pretraining_request
from ovos_ray.run.request import RunRequest, spool_folder
from ovos_ray.run.same import finished_below, same_run, take_over, was_taken_over
from ovos_ray.run.set_aside import run_key, set_aside
from ovos_ray.storage import Storage
from ovos_ray.study.best import log_best_network
from ovos_ray.study.checks import check_scheduler, check_searcher
from ovos_ray.study.earlier import check_earlier, differing
from ovos_ray.study.population import run_population, segment_tags
from ovos_ray.study.pretraining import distinct_pretrainings, without_failed_pretraining
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.status import write_plan
from ovos_ray.study.summary import SweepResult, read_failure
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.track.sink import Sink
from ovos_ray.train.run_folder import RunFolder

__all__ = ["Execute", "requests_of", "run_study", "sweep_key"]

Execute = Callable[[SearchSpace, Sequence[Trial], Mapping[str, RunRequest], Lease], None]
"""Makes some runs of a study, by trial name. A run that fails is marked (`run/failure.py`), and the others go on.

While they go on it calls `lease.check()`: as soon as that raises, it hands out no more and ends those that run.
"""


def run_study(
    space: SearchSpace,
    trials: Sequence[Trial],
    execute: Execute,
    *,
    check_room: Callable[[ExperimentConfig], None] | None = None,
    tags: Mapping[str, str] | None = None,
    watcher: Callable[[dict[str, Any]], None] | None = None,
    replace: bool = False,
    take_over_same: bool = False,
) -> SweepResult:
    """Runs a study to the end; failing trials are counted, not fatal.

    Args:
        space: The study.
        trials: From `expand.expand`, with absolute paths.
        execute: Makes the runs; called for the pretrainings first, then for the trials.
        check_room: Raises a `ResourceError` if there will never be room for a run of this configuration.
        tags: More MLflow tags for parent and trials.
        watcher: See `RunRequest.watcher`.
        replace: Set trials aside that were made with other settings, instead of refusing the study.
        take_over_same: Take over finished runs of the same digest from other studies beside it (`run/same.py`);
            False: what was taken over before is set aside, and trained.

    Raises:
        ConfigError: The scheduler has nothing to compare, or a setting is not carried out.
        CheckpointError: Trials of this name have been made with other settings.
        ResourceError: See `check_room`.
        HeldError: Another process makes the same study, or has taken it over meanwhile; says which.
    """
    tags = tags or {}

    def say(event: str) -> None:
        if watcher is not None:
            watcher({"run": trials[0].config.name, "step": 0, "steps": trials[0].config.train.steps, "event": event})

    # Held before anything is looked at: what another process makes until then counts, and nothing of it is moved.
    with hold(Storage(trials[0].config.storage), f"study {space.name}", say) as lease:
        trials = _checked(space, trials, check_room, replace=replace)
        others = differing(space, trials) if replace else []
        is_population = space.scheduler == "pbt"  # its segments are never taken over
        if not take_over_same and not is_population:
            others += [trial for trial in trials if trial not in others and was_taken_over(trial.config)]
        _set_aside(space, others, tags, watcher)
        make = functools.partial(_make, execute=execute, lease=lease, tags=tags, watcher=watcher)
        if not is_population:
            return make(space, trials, take_over_same=take_over_same)

        def generation(plain: SearchSpace, segments: Sequence[Trial]) -> SweepResult:
            return make(plain, _checked(plain, segments, check_room, replace=False), take_over_same=False)

        return run_population(space, trials, generation, watcher)


def _checked(
    space: SearchSpace,
    trials: Sequence[Trial],
    check_room: Callable[[ExperimentConfig], None] | None,
    *,
    replace: bool,
) -> list[Trial]:
    """Returns the trials with what lies at their paths pinned, if they can be run as things are."""
    trials = [Trial(trial.name, trial.values, pin_content(trial.config)) for trial in trials]
    check_scheduler(space, trials)
    check_searcher(space)
    if not replace:
        check_earlier(space, trials)
    for trial in trials:
        check_config(trial.config)
    if check_room is not None:
        for config in {trial.config.train: trial.config for trial in trials}.values():
            check_room(config)
    return trials


def _make(
    space: SearchSpace,
    trials: Sequence[Trial],
    *,
    execute: Execute,
    lease: Lease,
    tags: Mapping[str, str],
    watcher: Callable[[dict[str, Any]], None] | None,
    take_over_same: bool,
) -> SweepResult:
    """Makes what is not finished of a study that is held, pretrainings first."""
    lease.check()
    requests = requests_of(space, trials, tags=tags, watcher=watcher)
    todo = {name: one for name, one in requests.items() if RunFolder.of(one.config).result() is None}
    for request in todo.values():
        forget_failure(request.config)
    _write_plan(space, requests)
    parent = _open_parent(space, trials, tags=tags)
    try:
        if take_over_same and space.searcher != "optuna":  # what is to be computed is not drawn yet
            todo = _without_same(space, todo)
        if stages := distinct_pretrainings(todo):
            execute(dataclasses.replace(space, scheduler="fifo", searcher="grid"), trials, stages, lease)
            lease.check()
        if runs := without_failed_pretraining(todo):
            execute(space, trials, runs, lease)
        lease.look()
    except HeldError:  # its MLflow run is that of another process, too
        parent.close()
        raise
    except BaseException:
        parent.finish("KILLED")
        raise
    return _finish_parent(parent, trials, space.metric)


def _write_plan(space: SearchSpace, requests: Mapping[str, RunRequest]) -> None:
    """Says in the study's folder what it is to make, for those who look at it while it goes on (`study/status.py`)."""
    stages = {one.pretraining.config.name: one.pretraining.config for one in requests.values() if one.pretraining}
    folders = [RunFolder.of(config).storage.folder for config in stages.values()]
    trials = {name: one.config.name for name, one in requests.items()}
    write_plan(Storage(next(iter(requests.values())).config.storage), space.name, space.metric, trials, folders)


def _without_same(space: SearchSpace, todo: Mapping[str, RunRequest]) -> dict[str, RunRequest]:
    """Takes over what is finished elsewhere below the storage that the study lies in; returns what is to be trained."""
    left: dict[str, RunRequest] = {}
    finished: Mapping[str, RunFolder] | None = None
    for name, request in todo.items():
        if finished is None:
            finished = finished_below(request.config.storage.removesuffix(f"/{space.name}"))
        if (same := same_run(request.config, finished)) is None:
            left[name] = request
        else:
            with run_lock(request):
                take_over(request, same)
    return left


def _set_aside(space: SearchSpace, trials: Sequence[Trial], tags: Mapping[str, str], watcher: Any) -> None:
    requests = requests_of(space, trials, tags=tags, watcher=watcher)
    for request in requests.values():
        request.post(0, event=f"set aside: {set_aside(request)}")


def sweep_key(space: SearchSpace, storage: str) -> str:
    """Returns the stable key of a study's parent run."""
    return f"sweep:{storage}:{space.name}"


def requests_of(
    space: SearchSpace, trials: Sequence[Trial], *, tags: Mapping[str, str], watcher: Any = None
) -> dict[str, RunRequest]:
    """Returns the runs of a study by trial name; their configurations must have absolute paths already."""
    requests = {}
    for trial in trials:
        config = trial.config
        requests[trial.name] = RunRequest(
            config=config,
            experiment=space.name,
            run_key=run_key("trial", config),
            parent_key=sweep_key(space, config.storage),
            tags={
                **tags,
                "ovos.kind": "trial",
                "ovos.study": space.name,
                "ovos.trial": trial.name,
                **segment_tags(config),
            },
            watcher=watcher,
            pretraining=pretraining_request(config, Path.cwd(), tags=tags, watcher=watcher),
        )
    return requests


def _open_parent(space: SearchSpace, trials: Sequence[Trial], *, tags: Mapping[str, str]) -> Sink:
    """Opens the MLflow run of the sweep, under which those of the trials are nested."""
    first = trials[0].config
    return Sink.open(
        first.tracking_uri,
        space.name,
        sweep_key(space, first.storage),
        name=f"sweep {space.name}",
        tags={**tags, "ovos.kind": "sweep", "ovos.study": space.name, "ovos.table": space.table},
        params={"trainable": space.trainable, "num_trials": len(trials), "metric": space.metric},
        spool=spool_folder(first).parent.parent / "tracking",
    )


def _finish_parent(parent: Sink, trials: Sequence[Trial], metric: str) -> SweepResult:
    """Collects what the trials have left, and ends the sweep's run."""
    results = {t.name: result for t in trials if (result := RunFolder.of(t.config).result()) is not None}
    failed = tuple(read_failure(trial) for trial in trials if trial.name not in results)
    best = max((r["scores"].get(PRIMARY.key, -math.inf) for r in results.values()), default=-math.inf)
    if math.isfinite(best):
        parent.log_metrics(
            {f"best/{PRIMARY.key}": best, "trials/finished": len(results), "trials/failed": len(failed)}, len(results)
        )
        log_best_network(parent, trials, results, metric)
    finish_and_keep(parent, Storage(trials[0].config.storage), "FAILED" if failed else "FINISHED")
    return SweepResult(results, failed)
