"""One trial of a sweep: a function that fits one `TorchTrainer` and tells Tune and MLflow how it went."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayError

from ovos_ray.config import override
from ovos_ray.on_ray.fit import fit, own_cause
from ovos_ray.run.request import RunRequest
from ovos_ray.study.run_study import mark_failed
from ovos_ray.study.summary import forget_failure, note_failure

__all__ = ["request_of", "run_trial"]


def run_trial(parameters: dict[str, Any], *, requests: Mapping[str, RunRequest]) -> None:
    """Runs the trial that `parameters["trial"]` names. Called by Tune in a process of its own.

    A failure is written into the run's folder and its MLflow run; other trials are not affected.

    Raises:
        RayError: A process or node was lost; Tune starts the trial again, and it resumes.
    """
    from ray.tune.integration.ray_train import TuneReportCallback

    request = request_of(parameters, requests)
    forget_failure(request.config)
    try:
        fit(request, callbacks=[TuneReportCallback()])
    except Exception as error:
        if _is_being_stopped():  # its workers are taken from under it; `stopping.py` writes down where it stood
            return
        cause = own_cause(error) or error
        if isinstance(cause, RayError):
            note_failure(request.config, cause)
            raise
        # Trying again would not mend it; raised, Tune would.
        mark_failed(request, cause)


def _is_being_stopped() -> bool:
    """Whether Tune is ending this trial early."""
    from ray.train._internal.session import get_session

    session = get_session()
    return session is None or session.stop_event.is_set()  # None: Tune has closed it already


def request_of(parameters: Mapping[str, Any], requests: Mapping[str, RunRequest]) -> RunRequest:
    """Returns the run that Tune's parameters name, with the values that a searcher has drawn for it."""
    request = requests[parameters["trial"]]
    values = parameters.get("values")
    return dataclasses.replace(request, config=override(request.config, values)) if values else request
