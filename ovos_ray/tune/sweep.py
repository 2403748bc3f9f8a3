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

import ray
from ray import tune

from ovos_ray.config import ExperimentConfig, digest
from ovos_ray.io import Storage
from ovos_ray.track.bucket_spool import finish_and_keep
from ovos_ray.track.mlflow_sink import Sink
from ovos_ray.train.loop import check_resources, pretraining_request
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.worker import RunRequest, spool_folder
from ovos_ray.tune.best import log_best_network
from ovos_ray.tune.pretraining import distinct_pretrainings, without_failed_pretraining
from ovos_ray.tune.space import SearchSpace, Trial
from ovos_ray.tune.trial import run_trial

__all__ = ["SweepResult", "finish_parent", "max_concurrent_trials", "open_parent", "requests_of", "run_sweep"]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left.

    Attributes:
        results: `result.json` of every finished trial, by name.
        failed: Names of trials without a result.
    """

    results: Mapping[str, Mapping[str, Any]]
    failed: tuple[str, ...]


def max_concurrent_trials(config: ExperimentConfig, resources: Mapping[str, float]) -> int:
    """Returns how many trials of this size run at a time: all CPUs but one, and all GPUs.

    One CPU stays free for decoding; a trial itself takes a hundredth of a CPU beside its workers.

    Args:
        config: Of one trial.
        resources: Of the cluster, such as `ray.cluster_resources()`.
    """
    train = config.train
    cpus = train.num_workers * train.cpus_per_worker + 0.01
    by_cpu = math.floor((resources.get("CPU", 0) - 1) / cpus)
    gpus = train.num_workers * train.gpus_per_worker
    by_gpu = math.floor(resources.get("GPU", 0) / gpus) if gpus else by_cpu
    return max(1, min(by_cpu, by_gpu))


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
            tags={**tags, "ovos.kind": "trial", "ovos.study": space.name, "ovos.trial": trial.name},
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
        trials: From `space.expand`, with absolute paths.
        tags: More MLflow tags for parent and trials.
        watcher: See `RunRequest.watcher`.
        max_concurrent: Trials at a time; None: computed from the cluster.

    Raises:
        ResourceError: A trial asks for more than the cluster has.
    """
    tags = dict(tags or {})
    first = trials[0].config
    for trial in trials:
        check_resources(trial.config)
    requests = requests_of(space, trials, tags=tags, watcher=watcher)
    todo = [trial.name for trial in trials if RunFolder.of(trial.config).result() is None]
    parent = open_parent(space, trials, tags=tags)
    try:
        if todo:
            fitting = max_concurrent or max_concurrent_trials(first, ray.cluster_resources())
            runs = {name: requests[name] for name in todo}
            if stages := distinct_pretrainings(runs):
                _tune(dataclasses.replace(space, scheduler="fifo"), stages, min(fitting, len(stages)))
            if runs := without_failed_pretraining(runs):
                _tune(space, runs, min(fitting, len(runs)))
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
    failed = tuple(t.name for t in trials if t.name not in results)
    best = max((r["scores"].get("jf", -math.inf) for r in results.values()), default=-math.inf)
    if math.isfinite(best):
        parent.log_metrics(
            {"best/jf": best, "trials/finished": len(results), "trials/failed": len(failed)}, len(results)
        )
        log_best_network(parent, trials, results)
    finish_and_keep(parent, Storage(trials[0].config.storage), "FAILED" if failed else "FINISHED")
    return SweepResult(results, failed)


def _tune(space: SearchSpace, requests: dict[str, RunRequest], max_concurrent: int) -> None:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # runs report through their watcher; Tune's tables repeat it
    first = next(iter(requests.values())).config
    storage = Storage(first.storage)
    trainable = tune.with_resources(functools.partial(run_trial, requests=requests), {"CPU": 0.01})
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(requests))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=max_concurrent,
            scheduler=_scheduler(space, first),
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{digest(first)}",
            storage_path=(storage / "ray").folder,
            verbose=0,
        ),
    )
    tuner.fit()


def _scheduler(space: SearchSpace, config: ExperimentConfig) -> Any:
    from ray.tune import schedulers

    every = max(1, config.validation.every)
    if space.scheduler == "asha":
        return schedulers.ASHAScheduler(
            time_attr="step", metric=space.metric, mode="max", max_t=config.train.steps, grace_period=every
        )
    if space.scheduler == "median":
        return schedulers.MedianStoppingRule(time_attr="step", metric=space.metric, mode="max", grace_period=every)
    return None
