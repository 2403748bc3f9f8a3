"""What every way of running a study shares: the runs it is made of, and its own MLflow run around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovos_ray.io import Storage
from ovos_ray.run.pretraining import pretraining_request
from ovos_ray.run.request import RunRequest, spool_folder
from ovos_ray.study.best import log_best_network
from ovos_ray.study.population import segment_tags
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import SweepResult, note_failure, read_failure
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.track.sink import Sink
from ovos_ray.train.run_folder import RunFolder

__all__ = ["finish_parent", "mark_failed", "open_parent", "requests_of", "sweep_key"]


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
            run_key=f"trial:{config.storage}:{config.name}",
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


def open_parent(space: SearchSpace, trials: Sequence[Trial], *, tags: Mapping[str, str]) -> Sink:
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


def finish_parent(parent: Sink, trials: Sequence[Trial]) -> SweepResult:
    """Collects what the trials have left, and ends the sweep's run."""
    results = {t.name: result for t in trials if (result := RunFolder.of(t.config).result()) is not None}
    failed = tuple(read_failure(trial) for trial in trials if trial.name not in results)
    best = max((r["scores"].get("jf", -math.inf) for r in results.values()), default=-math.inf)
    if math.isfinite(best):
        parent.log_metrics(
            {"best/jf": best, "trials/finished": len(results), "trials/failed": len(failed)}, len(results)
        )
        log_best_network(parent, trials, results)
    finish_and_keep(parent, Storage(trials[0].config.storage), "FAILED" if failed else "FINISHED")
    return SweepResult(results, failed)


def mark_failed(request: RunRequest, cause: BaseException) -> None:
    """Keeps the reason of a failure in the run's folder, and ends its MLflow run as failed."""
    config = request.config
    note_failure(config, cause)
    with_error = {**request.tags, "ovos.error": f"{type(cause).__name__}: {cause}"[:400]}
    sink = Sink.open(
        config.tracking_uri,
        request.experiment,
        request.run_key,
        name=config.name,
        parent_key=request.parent_key,
        tags=with_error,
        spool=spool_folder(config),
    )
    finish_and_keep(sink, RunFolder.of(config).storage, "FAILED")
    request.post(0, event=f"failed: {cause}", failed=True)
