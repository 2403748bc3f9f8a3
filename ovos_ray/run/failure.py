"""How a run ends that fails: the reason in its folder (`failure.json`), its MLflow run FAILED.

A run of a study is marked as failed by what executes the study, which alone knows whether the run is started again. A
run that belongs to no study marks itself. A killed process marks nothing: its run goes on later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import HeldError, OvosError
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

__all__ = ["ending_failed", "forget_failure", "mark_failed", "note_failure", "noted_failure"]

_FILE = "failure.json"


@contextmanager
def ending_failed(request: RunRequest) -> Iterator[None]:
    """Marks a run that belongs to no study as failed if the block raises an error; Ctrl-C and SIGTERM are none."""
    if not request.alone:
        yield
        return
    forget_failure(request.config)
    try:
        yield
    except HeldError:  # folder and MLflow run are those of another process, which goes on
        raise
    except Exception as error:
        with suppress(OSError, OvosError):  # a full disk must not hide what went wrong
            _end(request, error)
        raise


def mark_failed(request: RunRequest, cause: BaseException) -> None:
    """Tells the watcher of a failure, keeps its reason in the run's folder, and ends its MLflow run as failed."""
    request.post(0, event=f"failed: {cause}", failed=True)
    if not isinstance(cause, HeldError):  # as above
        _end(request, cause)


def _end(request: RunRequest, cause: BaseException) -> None:
    # Late: torch comes with them, and who only reads a failure is to be answered at once.
    from ovos_ray.run.run_log import open_sink
    from ovos_ray.track.bucket import finish_and_keep

    note_failure(request.config, cause)
    sink = open_sink(request, {"ovos.error": f"{type(cause).__name__}: {cause}"[:400]})
    finish_and_keep(sink, RunFolder.of(request.config).storage, "FAILED")


def note_failure(config: ExperimentConfig, error: BaseException) -> None:
    """Keeps the reason of a failure in the run's folder, where the driver finds it on any cluster."""
    text = error.message if isinstance(error, OvosError) else str(error).strip()
    remedy = error.remedy if isinstance(error, OvosError) else None
    content = {"error": type(error).__name__, "reason": text[-2000:], "remedy": remedy or ""}
    RunFolder.of(config).storage.write(json.dumps(content, indent=2).encode(), _FILE)


def noted_failure(config: ExperimentConfig) -> dict[str, Any] | None:
    """Returns `error`, `reason` and `remedy` of the failure that a run's folder tells of, if it does."""
    storage = RunFolder.of(config).storage
    content: dict[str, Any] | None = json.loads(storage.read(_FILE)) if storage.exists(_FILE) else None
    return content


def forget_failure(config: ExperimentConfig) -> None:
    """Removes the reason of an earlier failure, since the run is made again."""
    storage = RunFolder.of(config).storage
    if storage.exists(_FILE):
        storage.remove(_FILE)
