"""What a run is asked for: its configuration, and what only its tracker and its watcher need to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.digest import resolve_paths
from ovos_ray.config.files import find_config, is_file
from ovos_ray.lease import Lease
from ovos_ray.track.servers import require_chosen, resolve_tracking_uri
from ovos_ray.train.run_folder import RunFolder

__all__ = ["RunRequest", "config_from", "resolve", "spool_folder"]


def resolve(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration with absolute paths and tracking store, as workers need it."""
    config = resolve_paths(config, Path.cwd())
    if not config.tracking_uri:
        return config
    return override(config, {"tracking_uri": resolve_tracking_uri(config.tracking_uri)})


@dataclass(frozen=True)
class RunRequest:
    """One run to be made, with what only its tracker and its watcher need to know.

    Attributes:
        config: With absolute paths (`resolve_paths`), since workers run in other folders and on other machines.
        experiment: MLflow experiment, the name of the study.
        run_key: Continues the MLflow run of the same key.
        parent_key: The run of the sweep.
        tags: More MLflow tags.
        watcher: Called with every progress record (see `progress.py`); must return at once. None: nobody watches.
        pretraining: The stage that comes first, if any (`pretraining.pretraining_request`).
        shared: Whether others may ask for the same run at the same time; then one trains it and the others wait.
        alone: Whether it belongs to no study, so that it says itself how it failed (`run/failure.py`).
        lease: Holds its folder while it is made; lost, it ends (`run/lock.py`).
        same_below: Storage whose finished runs of the same digest are taken over; None: it is trained (`run/same.py`).
    """

    config: ExperimentConfig
    experiment: str
    run_key: str
    parent_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    watcher: Callable[[dict[str, Any]], None] | None = None
    pretraining: RunRequest | None = None
    shared: bool = False
    alone: bool = False
    lease: Lease = field(default_factory=Lease, compare=False)
    same_below: str | None = None

    def post(self, step: int, **values: Any) -> None:
        """Tells the watcher, if there is one; never waits."""
        if self.watcher is not None:
            self.watcher({"run": self.config.name, "step": step, "steps": self.config.train.steps, **values})


def config_from(source: str, overrides: Sequence[str] | Mapping[str, Any] = ()) -> ExperimentConfig:
    """Returns the configuration of a recipe, a file or a run's folder, with settings changed.

    Raises:
        ConfigError: There is none, or a setting does not exist; or a file names a tracking store that this user has not
            chosen, and no override does.
    """
    config = override(find_config(source), overrides)
    if is_file(source) and "tracking_uri" not in {str(one).partition("=")[0] for one in overrides}:
        require_chosen(config.tracking_uri, source)
    return config


def spool_folder(config: ExperimentConfig) -> Path:
    """Returns where tracking records wait: on the run's storage if that is a disk, so that they outlive the machine."""
    storage = RunFolder.of(config).storage
    if storage.local:
        return Path(storage.path("tracking"))
    return Path.home() / ".cache" / "ovos_ray" / "tracking" / config.name
