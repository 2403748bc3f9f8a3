"""Keeps a run whose place another one takes: its folder moves to `replaced/NAME-1` beside it.

Its MLflow run stays, but no longer counts as a trial of its study. The new run has an MLflow run of its own, whose key
counts what was set aside before: so it is found again when the new run is resumed.
"""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig
from ovos_ray.lease import LEASE_NAME
from ovos_ray.run.lock import run_lock
from ovos_ray.run.request import RunRequest
from ovos_ray.run.run_log import open_sink
from ovos_ray.storage import Storage
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.train.run_folder import RunFolder

__all__ = ["run_key", "set_aside"]

_FOLDER = "replaced"


def run_key(kind: str, config: ExperimentConfig) -> str:
    """Returns what finds the MLflow run of a configuration again, in every later process."""
    number = len(_earlier(config))
    return f"{kind}:{config.storage}:{config.name}" + (f":{number}" if number else "")


def set_aside(request: RunRequest) -> str:
    """Moves what a run has left out of the way of another one of its name.

    Args:
        request: The run; its configuration may be that of the one that takes its place.

    Returns:
        Where it lies now.

    Raises:
        HeldError: Another process makes it, and would lose its folder.
    """
    config, folder = request.config, RunFolder.of(request.config)
    with run_lock(request):  # what is locked moves, too: who has waited for it finds the place empty
        sink = open_sink(request, {"ovos.kind": "replaced"})
        finish_and_keep(sink, folder.storage, "KILLED" if folder.result() is None else "FINISHED")
        storage, name = Storage(config.storage), f"{config.name}-{len(_earlier(config)) + 1}"
        storage.move(config.name, f"{_FOLDER}/{name}")
        aside = storage / _FOLDER / name
        if aside.exists(LEASE_NAME):
            aside.remove(LEASE_NAME)
    return aside.folder


def _earlier(config: ExperimentConfig) -> list[str]:
    stem, folders = f"{config.name}-", (Storage(config.storage) / _FOLDER).folders()
    return [name for name in folders if name.startswith(stem) and name.removeprefix(stem).isdigit()]
