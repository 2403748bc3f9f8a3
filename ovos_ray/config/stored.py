"""Configurations as they are stored with runs, read by any later version.

A setting that is added is marked `Added(before=…)` in its annotation, so that what was stored without it keeps its
digest. One that is removed is listed in `REMOVED` or `FORGOTTEN` with the value at which it did nothing: what was
stored with that value is read and keeps its digest too. What changes its form otherwise is a step of `_STEPS`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ovos_ray.config.digest import FORGOTTEN, REMOVED, digest
from ovos_ray.config.overrides import from_dict, to_dict
from ovos_ray.config.settings import ExperimentConfig
from ovos_ray.errors import ConfigError

__all__ = ["SCHEMA", "read_stored", "to_store"]

SCHEMA = 2
"""1: up to version 0.1, without a number. 2: data and weights are pinned, and `evaluation.also` has parts."""

_STEPS: dict[int, Callable[[dict[str, Any]], None]] = {1: lambda values: None}  # `from_dict` reads the old words too
"""By version, what changes values of it in place to those of the next."""


def to_store(config: ExperimentConfig) -> dict[str, Any]:
    """Returns what `config.json` holds: schema, digest, and every setting."""
    return {"schema": SCHEMA, "digest": digest(config), "config": to_dict(config)}


def read_stored(values: Mapping[str, Any], schema: int = 1) -> ExperimentConfig:
    """Reads the settings of a run that this version or an earlier one has stored.

    Args:
        values: `config` of `config.json` or of a checkpoint.
        schema: What stands beside it.

    Raises:
        ConfigError: A later version has stored it, or none, or a setting that is no longer there had an effect.
    """
    if type(schema) is not int or schema < 1:
        raise ConfigError(f"the settings are of schema {schema!r:.80}, which no version has written")
    if schema > SCHEMA:
        raise ConfigError(
            f"the run was stored with settings of schema {schema}, this version knows {SCHEMA}",
            "take the version of ovos_ray that it was made with, or a later one",
        )
    current = copy.deepcopy(dict(values))
    for version in range(schema, SCHEMA):
        _STEPS[version](current)
    for key, harmless in (REMOVED | FORGOTTEN).items():
        *groups, name = key.split(".")
        group: Any = current
        for part in groups:
            group = group.get(part) if isinstance(group, Mapping) else None
        if isinstance(group, dict) and name in group and (value := group.pop(name)) != harmless:
            raise ConfigError(
                f"the run was made with {key} = {value!r}, a setting that is no longer there",
                "take the version of ovos_ray that it was made with",
            )
    return from_dict(ExperimentConfig, current)
