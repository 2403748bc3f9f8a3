"""Configurations from files: what a run has stored (`runs/NAME/config.json`), and what a user wrote (`run.yaml`).

recipe: trainables.one_shot     # where it starts; without it, from the defaults
data.shards: shards/davis       # dotted keys, or groups
train:
steps: 500
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ovos_ray.config.overrides import override
from ovos_ray.config.recipes import make, require_shipped
from ovos_ray.config.settings import ExperimentConfig
from ovos_ray.config.stored import read_stored
from ovos_ray.errors import ConfigError

__all__ = ["SUFFIXES", "find_config", "is_file"]

SUFFIXES = (".json", ".yaml", ".yml")
_MOST_SETTINGS = 10_000  # YAML can refer to what it has said, and say a billion things in ten lines


def is_file(source: str) -> bool:
    """Whether a source names a file of settings or the folder of a run, not a module."""
    return source.endswith(SUFFIXES) or "/" in source or os.path.isfile(os.path.join(source, "config.json"))


def find_config(source: str) -> ExperimentConfig:
    """Returns the configuration that a recipe makes, or that a file holds.

    Args:
        source: A module path, such as `trainables.one_shot`; a `.json` or `.yaml` file; or the folder of a run.

    Raises:
        ConfigError: It is not found, or holds what is no setting, or is a file that names a recipe of others.
    """
    if not is_file(source):
        return make(source, ExperimentConfig)
    config = _of_file(source)
    if config.pretrain is not None:
        require_shipped(config.pretrain.recipe, source)
    return config


def _of_file(source: str) -> ExperimentConfig:
    folder = not source.endswith(SUFFIXES)
    values = _read(Path(source, "config.json") if folder else Path(source))
    if isinstance(values.get("config"), Mapping):  # as `RunFolder` and `show --format` write it
        return read_stored(values["config"], values.get("schema", 1))
    recipe = values.pop("recipe", None)
    if recipe is not None:
        require_shipped(str(recipe), source)
    config = ExperimentConfig() if recipe is None else make(str(recipe), ExperimentConfig)
    try:
        leaves = dict(itertools.islice(_leaves(values), _MOST_SETTINGS + 1))
        if len(leaves) > _MOST_SETTINGS:
            raise ConfigError(f"more than {_MOST_SETTINGS:,} settings", _REMEDY)
        return override(config, leaves)
    except RecursionError as error:
        raise ConfigError(f"{source}: holds itself", _REMEDY) from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", error.remedy) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror})", "give a run's folder, a file, or a recipe of `ovos-ray ls`"
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a configuration ({error})", _REMEDY) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, no settings", _REMEDY)
    return values


_REMEDY = "`ovos-ray show RECIPE --format yaml` writes one"


def _leaves(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
