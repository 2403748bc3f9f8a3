"""A study on a cluster: Ray Tune runs the trials that are not finished, as many at a time as fit.

What a study has computed lies in its trials' folders (`result.json`, checkpoints), not in Tune's state. Running the
same study again therefore skips finished trials and continues the others, also after the driver or the head was lost.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from ovos_ray.identity import digest
from ovos_ray.io import Storage
from ovos_ray.track.bucket_spool import finish_and_keep
from ovos_ray.track.mlflow_sink import Sink
from ovos_ray.train.checks import check_config
from ovos_ray.train.loop import check_resources, cluster_resources, pretraining_request
from ovos_ray.train.resources import max_concurrent
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.worker import RunRequest, spool_folder
from ovos_ray.tune.best import log_best_network
from ovos_ray.tune.learned_search import LearnedDraws
from ovos_ray.tune.population import run_population, segment_tags
from ovos_ray.tune.pretraining import distinct_pretrainings, without_failed_pretraining
from ovos_ray.tune.scheduling import check_scheduler, check_searcher, make_scheduler
from ovos_ray.tune.space import SearchSpace, Trial
from ovos_ray.tune.stopping import StoppedTrials
from ovos_ray.tune.summary import Failure, read_failure
from ovos_ray.tune.trial import run_trial

__all__ = ["SweepResult", "finish_parent", "open_parent", "requests_of", "run_sweep", "sweep_key"]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left.

    Attributes:
        results: `result.json` of every trial that finished or was stopped early, by name.
        failed: The trials without a result, with the reason.
    """

    results: Mapping[str, Mapping[str, Any]]
    failed: tuple[Failure, ...]


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


def run_sweep(
    space: SearchSpace,
    trials: Sequence[Trial],
    *,
    tags: Mapping[str, str] | None = None,
    watcher: Any = None,
    max_concurrent: int | None = None,
) -> SweepResult:
    """Runs a study to the end; failing trials are counted, not fatal.

    Args:
        space: The study.
        trials: From `expand.expand`, with absolute paths.
        tags: More MLflow tags for parent and trials.
        watcher: See `RunRequest.watcher`.
        max_concurrent: Trials at a time; None: computed from the cluster.

    Raises:
        ConfigError: The scheduler has nothing to compare, or a setting is not carried out.
        ResourceError: A trial asks for more than the cluster has.
    """
    tags = dict(tags or {})
    check_scheduler(space, trials)
    check_searcher(space)
    if space.scheduler == "pbt":
        again = functools.partial(run_sweep, tags=tags, watcher=watcher, max_concurrent=max_concurrent)
        return run_population(space, trials, again, watcher)
    for trial in trials:
        check_config(trial.config)
    for config in {trial.config.train: trial.config for trial in trials}.values():
        check_resources(config)
    requests = requests_of(space, trials, tags=tags, watcher=watcher)
    todo = [trial for trial in trials if RunFolder.of(trial.config).result() is None]
    parent = open_parent(space, trials, tags=tags)
    try:
        runs = {trial.name: requests[trial.name] for trial in todo}
        if stages := distinct_pretrainings(runs):
            plain = dataclasses.replace(space, scheduler="fifo", searcher="grid")
            _tune(plain, trials, stages, max_concurrent)
        if runs := without_failed_pretraining(runs):
            _tune(space, trials, runs, max_concurrent)
    except BaseException:
        parent.finish("KILLED")
        raise
    return finish_parent(parent, trials)


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


def _tune(space: SearchSpace, trials: Sequence[Trial], requests: dict[str, RunRequest], at_a_time: int | None) -> None:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # runs report through their watcher; Tune's tables repeat it
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # the last report has final/jf and no val/jf
    configs = [request.config for request in requests.values()]
    first, trains = configs[0], [config.train for config in configs]
    fitting = at_a_time or max_concurrent(trains, cluster_resources())
    stopped = StoppedTrials(requests)
    searcher, parameters = None, {"trial": tune.grid_search(list(requests))}
    if space.searcher == "optuna":
        known = [trial for trial in trials if trial.name in requests or RunFolder.of(trial.config).result() is not None]
        searcher, parameters = LearnedDraws(space, known), {}
    tuner = tune.Tuner(
        tune.with_resources(functools.partial(run_trial, requests=requests), {"CPU": 0.01}),
        param_space=parameters,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=min(fitting, len(requests)),
            search_alg=searcher,
            num_samples=len(requests) if searcher is not None else 1,
            # The process of a trial only drives its workers: the next trial takes it over, imports and all. Where
            # trials are stopped early, its end is what frees the workers.
            reuse_actors=space.scheduler == "fifo",
            scheduler=make_scheduler(space, configs),
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{digest(first)}",
            storage_path=(Storage(first.storage) / "ray").folder,
            verbose=0,
            callbacks=[stopped],
            # A trial whose process is lost with its node starts again, from its own checkpoint.
            failure_config=tune.FailureConfig(max_failures=max(train.max_failures for train in trains)),
        ),
    )
    tuner.fit()
    stopped.wait()
