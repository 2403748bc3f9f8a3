"""One trial of a sweep: what Tune calls in a process of its own, and what that process holds."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, RayError

from ovos_ray.config import override
from ovos_ray.errors import HeldError
from ovos_ray.on_ray.causes import lasting_cause, own_cause, was_killed
from ovos_ray.on_ray.fit import fit
from ovos_ray.on_ray.one_process import train_in_this_process
from ovos_ray.on_ray.private import trial_is_being_stopped
from ovos_ray.on_ray.room import head_node, processors
from ovos_ray.run.failure import forget_failure, mark_failed, note_failure
from ovos_ray.run.prepare import make_run
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import workers_that_fit

__all__ = ["HELD", "request_of", "resources_of", "run_trial"]

HELD = "held by another process"
"""The last report of a trial whose run another process is making."""
_DRIVER_BYTES = 2**20
"""What the process that drives a trial of several workers holds: Ray has no placement group that holds nothing."""
_LAST_MOMENT_S = 10.0
"""Before lost workers are called a failure: if this process's node is lost too, it ends within five seconds."""


def request_of(parameters: Mapping[str, Any], requests: Mapping[str, RunRequest]) -> RunRequest:
    """Returns the run that Tune's parameters name, with the values that a searcher has drawn for it."""
    request = requests[parameters["trial"]]
    values = parameters.get("values")
    return dataclasses.replace(request, config=override(request.config, values)) if values else request


def resources_of(parameters: Mapping[str, Any], *, requests: Mapping[str, RunRequest]) -> tune.PlacementGroupFactory:
    """Returns what the process of a trial holds: the processors of its worker or, with several workers, hardly any.

    The process of a trial on several workers only drives them. It holds no part of a CPU, however small: that would be
    missing where the workers need all there are. It stays off a head node that has no room for a worker, and so does
    Train's controller, which goes with it.
    """
    config = requests[parameters["trial"]].config
    if config.train.num_workers > 1:
        head = head_node()
        kept_free = workers_that_fit(config.train, head.get("Resources", {})) == 0
        labels = {"bundle_label_selector": [{"ray.io/node-id": f"!{head['NodeID']}"}]} if head and kept_free else {}
        return tune.PlacementGroupFactory([{"memory": _DRIVER_BYTES}], **labels)
    held = processors(config)
    return tune.PlacementGroupFactory([{**held, "CPU": held["CPU"] or 0.01}])


def run_trial(parameters: dict[str, Any], *, requests: Mapping[str, RunRequest]) -> None:
    """Runs the trial that `parameters["trial"]` names. Called by Tune in a process that has run other trials before.

    A failure is written into the run's folder and its MLflow run; other trials are not affected.

    Raises:
        Exception: A process, node or connection was lost; Tune starts the trial again, and it resumes.
    """
    # How long Tune waits for a stopped trial to let go of its tracker before it ends the process instead.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "10")
    request = request_of(parameters, requests)
    forget_failure(request.config)
    if request.config.train.num_workers > 1:
        _run_on_workers(request)
        return
    try:
        make_run(request, functools.partial(train_in_this_process, report=tune.report))
    except Exception as error:
        if (cause := lasting_cause(error)) is None:
            note_failure(request.config, error)
            raise
        _end_failed(request, cause)  # trying again would not mend it; raised, Tune would


def _run_on_workers(request: RunRequest) -> None:
    from ray.tune.integration.ray_train import TuneReportCallback

    try:
        # Nodes that have gone since the study began come back, or they do not: that is no fault of the trial.
        fit(request, callbacks=[TuneReportCallback()], wait_s=None)
    except Exception as error:
        for pause_s in (0.0, _LAST_MOMENT_S if was_killed(error) else 0.0):
            time.sleep(pause_s)
            if trial_is_being_stopped():  # its workers are taken from it; `stopping.py` writes down where it stood
                return
        cause = own_cause(error) or error
        if isinstance(error.__cause__, RayActorError):
            cause = error.__cause__  # Train's controller has ended, and no worker too often
        if isinstance(cause, RayError):
            note_failure(request.config, cause)
            raise cause from None
        _end_failed(request, cause)


def _end_failed(request: RunRequest, cause: BaseException) -> None:
    mark_failed(request, cause)
    if isinstance(cause, HeldError):  # its folder is another's: who hears of its end must write no result there
        tune.report({"step": 0.0, HELD: True})
