"""One trial of a sweep: a function that fits one `TorchTrainer` and tells Tune and MLflow how it went."""

from __future__ import annotations

from typing import Any

from ovos_ray.errors import OvosError
from ovos_ray.track.bucket_spool import finish_and_keep
from ovos_ray.track.mlflow_sink import Sink
from ovos_ray.train.loop import fit, own_cause
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.worker import RunRequest, spool_folder

__all__ = ["mark_failed", "run_trial"]


def run_trial(parameters: dict[str, Any], *, requests: dict[str, RunRequest]) -> None:
    """Runs the trial that `parameters["trial"]` names. Called by Tune in a process of its own.

    Raises:
        OvosError: The trial failed; its MLflow run says so and why. Other trials are not affected.
    """
    from ray.tune.integration.ray_train import TuneReportCallback

    request = requests[parameters["trial"]]
    try:
        fit(request, callbacks=[TuneReportCallback()])
    except Exception as error:
        cause = own_cause(error) or error
        mark_failed(request, cause)
        if isinstance(cause, OvosError):
            raise cause from None
        raise


def mark_failed(request: RunRequest, cause: BaseException) -> None:
    """Ends the trial's MLflow run as failed, and says why in its tags."""
    config = request.config
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
