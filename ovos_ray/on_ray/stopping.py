"""How trials end before their last step: stopped by a scheduler, with a result that says so, or lost too often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ray import tune
from ray.exceptions import RayError

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.digest import digest
from ovos_ray.lease import Lease
from ovos_ray.on_ray.causes import post_restart, unwrapped, was_killed
from ovos_ray.on_ray.leaving import tell_runs_to_end
from ovos_ray.on_ray.trial import HELD, request_of
from ovos_ray.on_ray.workers import free_processors
from ovos_ray.run.failure import forget_failure, mark_failed
from ovos_ray.run.labels import labels_of_run
from ovos_ray.run.notice import EndingNotice
from ovos_ray.run.out_of_memory import killed_workers
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resume import marked_step
from ovos_ray.run.run_log import open_sink
from ovos_ray.study.space import SearchSpace
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.train.run_folder import RunFolder

__all__ = ["EndsTheStudy", "ToldToEnd", "TrialEnds", "make_scheduler", "write_stopped"]

_WATCHDOG_S = 15  # by then Tune has ended the trial, and Ray Train's watchdog has looked a dozen times


class ToldToEnd(Exception):  # noqa: N818 - no error
    """Ctrl-C."""


class EndsTheStudy(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Ends a study that another process has taken over, or that is told to end.

    What a callback raises ends all trials, and none is marked. Tune's `Stopper` would call them complete, and their
    folders would be given results.

    Args:
        lease: That of the study.
        notice: Given by Ctrl-C. Tune's own handler would let the study end as if its trials were lost.
    """

    def __init__(self, lease: Lease, notice: EndingNotice) -> None:
        self._lease, self._notice = lease, notice
        self._word: object = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune again and again, before it starts trials."""
        self._lease.check()
        if self._notice.given:
            with suppress(RayError):
                self._word = tell_runs_to_end()  # Tune gives them ten seconds
            raise ToldToEnd

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores callbacks' state with its own; there is none to keep


class TrialEnds(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Notices trials that are stopped or lost, and writes down where they stood.

    Args:
        requests: The runs by trial name.
    """

    def __init__(self, requests: Mapping[str, RunRequest]) -> None:
        self._requests = requests
        self._tagging = ThreadPoolExecutor(1, thread_name_prefix="stopped")
        self._freeing = ThreadPoolExecutor(1, thread_name_prefix="freeing")
        self._to_free: list[RunFolder] = []
        self._pending: list[Future[None]] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when a trial has ended, by itself or not."""
        request = request_of(trial.config, self._requests)
        last = trial.last_result or {}
        if HELD in last:
            return
        steps = request.config.stop_step
        folder = RunFolder.of(request.config)
        if not 0 < last.get("step", 0) < steps or folder.result() is not None or folder.storage.exists("failure.json"):
            return
        write_stopped(request, last)
        # Its process may hold the tracking spool for another moment; the sweep does not wait for that.
        self._pending.append(self._tagging.submit(_tag_stopped, request, int(last["step"])))
        if request.config.train.num_workers > 1:
            self._to_free.append(folder)
            self._pending.append(self._freeing.submit(self._free))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when it starts a trial again whose process was lost."""
        request = request_of(trial.config, self._requests)
        if request.config.train.num_workers == 1:
            post_restart(request, 0, trial.get_pickled_error() or RuntimeError("its process ended"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when a trial was lost more often than it may be."""
        request, error = request_of(trial.config, self._requests), trial.get_pickled_error()
        if error is None or was_killed(error):
            error = killed_workers(request.config, marked_step(request.config))
        mark_failed(request, unwrapped(error))

    def wait(self) -> None:
        """Waits until the tracker knows of all stopped trials, and their processors are free."""
        for pending in self._pending:
            pending.result()
        self._tagging.shutdown()
        self._freeing.shutdown()

    def _free(self) -> None:
        """Frees what has been stopped since the last time, all at once."""
        folders, self._to_free = self._to_free, []
        free_processors(folders, after_s=_WATCHDOG_S)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores callbacks' state with its own; ours is in the run folders


def write_stopped(request: RunRequest, last: Mapping[str, Any]) -> None:
    """Writes `result.json` of a stopped run: no final scores, the last of the selection split instead.

    Args:
        request: The run.
        last: What it reported last: `step` and `val/…`.
    """
    config = request.config
    labels = labels_of_run(config)
    step = int(last["step"])
    values = {
        "name": config.name,
        "digest": digest(config),
        "stopped": True,
        "steps": step,
        "seconds": float(last.get("time_total_s", 0.0)),
        "scores": {},
        "validation": {key.removeprefix("val/"): value for key, value in last.items() if key.startswith("val/")},
        "label_percent": labels.percent,
        "labels": labels.as_dict(),
        "bad_samples": [],
    }
    RunFolder.of(config).finish(values)
    request.post(step, event="stopped early: others do better")


def _tag_stopped(request: RunRequest, step: int) -> None:
    config = request.config
    forget_failure(config)  # it may have seen its workers die before it knew why
    folder = RunFolder.of(config)
    finish_and_keep(open_sink(request, {"ovos.stopped_early": step}), folder.storage)


def make_scheduler(space: SearchSpace, configs: Sequence[ExperimentConfig]) -> Any:
    """Returns Tune's scheduler; None: trials run to the end, in order.

    After a restart of the study a scheduler compares what is left with what reports from then on.
    """
    from ray.tune import schedulers

    if space.scheduler == "fifo":
        return None
    every = max(config.validation.every for config in configs)
    common = {"time_attr": "step", "metric": space.metric, "mode": "max", "grace_period": every}
    if space.scheduler == "asha":
        # One more than the last step: at max_t ASHA stops a trial, and its final scores are still to come.
        return schedulers.ASHAScheduler(**common, max_t=max(config.train.steps for config in configs) + 1)
    return schedulers.MedianStoppingRule(**common)
