"""A study on a cluster: Ray Tune runs the trials that are not finished, as many at a time as fit."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

from ovos_ray.config.digest import digest
from ovos_ray.lease import Lease
from ovos_ray.on_ray.concurrency import AsManyAsFit, SaysWhenNoneRuns
from ovos_ray.on_ray.optuna_searcher import LearnedDraws
from ovos_ray.on_ray.private import settle_ray_data
from ovos_ray.on_ray.room import await_room
from ovos_ray.on_ray.stopping import EndsTheStudy, ToldToEnd, TrialEnds, make_scheduler
from ovos_ray.on_ray.trial import resources_of, run_trial
from ovos_ray.run.notice import heeding_signals
from ovos_ray.run.request import RunRequest
from ovos_ray.storage import Storage
from ovos_ray.study.run_study import run_study
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import SweepResult
from ovos_ray.train.run_folder import RunFolder

__all__ = ["run_sweep"]


def run_sweep(
    space: SearchSpace,
    trials: Sequence[Trial],
    *,
    tags: Mapping[str, str] | None = None,
    watcher: Any = None,
    max_concurrent: int | None = None,
    wait_s: float = 0.0,
    replace: bool = False,
    take_over_same: bool = False,
) -> SweepResult:
    """Runs a study to the end; failing trials are counted, not fatal.

    Args:
        space: The study.
        trials: From `expand.expand`, with absolute paths.
        tags: More MLflow tags for parent and trials.
        watcher: See `RunRequest.watcher`.
        max_concurrent: Trials at a time; None: as many as fit on the cluster.
        wait_s: How long to wait for nodes that are not there yet; see `room.await_room`.
        replace: See `run_study`.
        take_over_same: See `run_study`.

    Raises:
        ConfigError: The scheduler has nothing to compare, or a setting is not carried out.
        ResourceError: A trial asks for more than the cluster has.
    """

    def say(event: str) -> None:
        if watcher is not None:
            watcher({"run": space.name, "step": 0, "steps": trials[0].config.train.steps, "event": event})

    room = functools.partial(await_room, wait_s=wait_s, say=say)
    execute = functools.partial(_tune, at_a_time=max_concurrent, may_grow=wait_s > 0, say=say)
    return run_study(
        space,
        trials,
        execute,
        check_room=room,
        tags=tags,
        watcher=watcher,
        replace=replace,
        take_over_same=take_over_same,
    )


def _tune(
    space: SearchSpace,
    trials: Sequence[Trial],
    requests: Mapping[str, RunRequest],
    lease: Lease,
    **options: Any,
) -> None:
    ends = TrialEnds(requests)
    try:
        with heeding_signals(signal.SIGINT) as notice, notice.after_this(), suppress(ToldToEnd):
            tuner = _tuner(space, trials, requests, [EndsTheStudy(lease, notice), ends], **options)
            settle_ray_data()
            tuner.fit()
    finally:
        ends.wait()


def _tuner(
    space: SearchSpace,
    trials: Sequence[Trial],
    requests: Mapping[str, RunRequest],
    callbacks: Sequence[tune.Callback],
    *,
    at_a_time: int | None,
    may_grow: bool,
    say: Callable[[str], None],
) -> tune.Tuner:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # runs report through their watcher; Tune's tables repeat it
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # the last report has final/jf and no val/jf
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # see `EndsTheStudy`
    configs = [request.config for request in requests.values()]
    first, trains = configs[0], [config.train for config in configs]
    alone = all(train.num_workers == 1 for train in trains)
    # A trial of one process holds what it needs, so that Tune starts as many as fit, on a cluster that grows too.
    follows = at_a_time is None and not (alone and space.searcher != "optuna")
    if follows:
        at_a_time = 1  # until it follows
    if space.searcher == "optuna":
        known = [trial for trial in trials if trial.name in requests or RunFolder.of(trial.config).result() is not None]
        search = ConcurrencyLimiter(LearnedDraws(space, known), max_concurrent=at_a_time)
        parameters, number = {}, len(requests)
    else:
        search = BasicVariantGenerator(max_concurrent=at_a_time or 0)
        parameters, number = {"trial": tune.grid_search(list(requests))}, 1
    following = [AsManyAsFit(search, trains, say, more=int(may_grow))] if follows else []
    return tune.Tuner(
        tune.with_resources(
            functools.partial(run_trial, requests=requests), functools.partial(resources_of, requests=requests)
        ),
        param_space=parameters,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=number,
            # The next trial takes over the process of one that has ended, imports and all. Where trials on several
            # workers are stopped early, the end of their process is what frees these.
            reuse_actors=space.scheduler == "fifo" or alone,
            scheduler=make_scheduler(space, configs),
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{digest(first)}",
            storage_path=(Storage(first.storage) / "ray").folder,
            verbose=0,
            callbacks=[*callbacks, SaysWhenNoneRuns(requests, say), *following],
            # A trial whose process is lost with its node starts again, from its own checkpoint.
            failure_config=tune.FailureConfig(max_failures=max(train.max_failures for train in trains)),
        ),
    )
