"""Paths in a job's command: relative ones mean another folder on another machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.config.files import is_file
from ovos_ray.config.recipes import make
from ovos_ray.errors import ConfigError
from ovos_ray.networks.published import PUBLISHED
from ovos_ray.run.request import config_from, resolve
from ovos_ray.study.expand import expand_study
from ovos_ray.study.price import group_trials
from ovos_ray.study.space import SearchSpace
from ovos_ray.track.servers import refuse_secrets

__all__ = ["refuse_relative_paths"]


def refuse_relative_paths(parameters: Mapping[str, Any], positional: Collection[str] = ()) -> None:
    """Refuses paths that start from the current folder: a job's is a copy of it that vanishes with the job.

    Args:
        parameters: Of the verb, by name.
        positional: Those that are written without a name.

    Raises:
        ConfigError: Names the settings and the way to write them; also for a recipe or setting that does not exist, and
            for credentials in the address of a tracking store.
    """
    found: dict[str, str] = {}
    for name, value in parameters.items():
        for given in value if isinstance(value, (list, tuple)) else [value]:
            path = Path(given.rpartition("=")[2]) if name == "mask" else given  # 42=MASK.png
            if name == "checkpoint" and str(path) in PUBLISHED:  # fetched there
                continue
            if isinstance(path, Path) and not path.is_absolute() and ":/" not in str(path):
                found[name.upper() if name in positional else "--" + name.replace("_", "-")] = str(given)
    store = parameters.get("tracking_uri")
    if isinstance(store, str):
        refuse_secrets(store)
    if isinstance(store, str) and store.startswith("sqlite:///") and not store.startswith("sqlite:////"):
        found["--tracking-uri"] = store
    recipe = parameters.get("trainable") or parameters.get("search_space")
    if recipe:
        found |= _relative_settings(recipe, parameters.get("overrides") or [])
    elif "server" in parameters:  # of `score`: what runs are scored on
        scored = override(ExperimentConfig(storage="/", tracking_uri=""), parameters.get("overrides") or [])
        found |= _relative_of([scored])
    if not found:
        return
    listing = ", ".join(f"{name} = {value}" for name, value in found.items())
    absolute = " ".join(_absolute(name, value) for name, value in found.items())
    remedy = f"write paths that every node of the cluster sees, in a bucket or on a disk such as this one: {absolute}"
    if any("tracking" in name for name in found):
        remedy += "; best give a tracking server, http://HOST:5000"
    raise ConfigError(
        f"relative paths mean another folder in a job, one that vanishes with it: {listing}",
        remedy,
    )


def _relative_settings(recipe: str, overrides: Sequence[str]) -> dict[str, str]:
    """Returns the settings of a recipe that are relative paths."""
    made = None if is_file(recipe) else make(recipe, object)
    if isinstance(made, SearchSpace):
        space, trials, _ = expand_study(made, overrides)
        configs = [group.config for group in group_trials(trials)]
        configs = [override(config, {"storage": config.storage.removesuffix(f"/{space.name}")}) for config in configs]
    else:
        configs = [config_from(recipe, list(overrides))]
    return _relative_of(configs)


def _relative_of(configs: Sequence[ExperimentConfig]) -> dict[str, str]:
    relative: dict[str, str] = {}
    for config in configs:
        for (key, value), there in zip(flatten(config).items(), flatten(resolve(config)).values(), strict=True):
            parts = value if isinstance(value, tuple) else (value,)
            if key == "evaluation.also":  # NAME=FOLDER each
                parts = tuple(one.root for one in config.evaluation.also)
            # What resolving changes is a path; an absolute one may change too, where it leads over a link.
            if value != there and not all(str(part).startswith(("/", "sqlite:////")) for part in parts):
                relative.setdefault(key, ",".join(map(str, value if isinstance(value, tuple) else (value,))))
    if "storage" in relative:
        relative.pop("pretrain.storage", None)  # it lies there unless said otherwise
    return relative


def _absolute(name: str, value: str) -> str:
    prefix = "sqlite:///" if value.startswith("sqlite:///") else ""
    named = [part.removeprefix(prefix).rpartition("=") for part in value.split(",")]  # evaluation.also has NAME=FOLDER
    paths = ",".join(prefix + before + equals + os.path.abspath(path) for before, equals, path in named)
    if name.isupper():
        return shlex.quote(paths)
    return f"{name} {shlex.quote(paths)}" if name.startswith("--") else shlex.quote(f"{name}={paths}")
