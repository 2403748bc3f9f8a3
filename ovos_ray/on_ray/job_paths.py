"""Paths in a job's command: relative ones mean another folder on another machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovos_ray.config import flatten, override
from ovos_ray.config.files import is_file
from ovos_ray.config.recipes import make
from ovos_ray.errors import ConfigError
from ovos_ray.run.request import config_from, resolve
from ovos_ray.study.expand import expand_study
from ovos_ray.study.price import group_trials
from ovos_ray.study.space import SearchSpace
from ovos_ray.track.servers import refuse_secrets

__all__ = ["refuse_relative_paths"]


def refuse_relative_paths(parameters: Mapping[str, Any]) -> None:
    """Refuses paths that start from the current folder: a job's is a copy of it that vanishes with the job.

    Raises:
        ConfigError: Names the settings and the way to write them; also for a recipe or setting that does not exist, and
            for credentials in the address of a tracking store.
    """
    found: dict[str, str] = {}
    for name, value in parameters.items():
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(path, Path) and not path.is_absolute() and ":/" not in str(path):
                found["--" + name.replace("_", "-")] = str(path)
    store = parameters.get("tracking_uri")
    if isinstance(store, str):
        refuse_secrets(store)
    if isinstance(store, str) and store.startswith("sqlite:///") and not store.startswith("sqlite:////"):
        found["--tracking-uri"] = store
    recipe = parameters.get("trainable") or parameters.get("search_space")
    if recipe:
        found |= _relative_settings(recipe, parameters.get("overrides") or [])
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
    return f"{name} {paths}" if name.startswith("--") else f"{name}={paths}"
