"""One trial of a sweep: a function that fits one `TorchTrainer` and tells Tune and MLflow how it went."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayError

from ovos_ray.config import override
from ovos_ray.track.bucket_spool import finish_and_keep
from ovos_ray.track.mlflow_sink import Sink
from ovos_ray.train.loop import fit, own_cause
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.worker import RunRequest, spool_folder
from ovos_ray.tune.summary import forget_failure, note_failure

__all__ = ["mark_failed", "request_of", "run_trial"]


def run_trial(parameters: dict[str, Any], *, requests: dict[str, RunRequest]) -> None:
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
