"""What a configuration computes, wherever its files lie: its digest, its paths made absolute, and two compared.

A configuration as written names its data and weights by the last part of their paths. When a run is prepared, what
lies there is pinned (`run/pin.py`): then the content counts, and the same name with other content is another digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from ovos_ray.config import INITS, ExperimentConfig
from ovos_ray.config.overrides import flatten, override
from ovos_ray.config.roles import Located, Pinned, settings_of
from ovos_ray.config.settings import keys_of

__all__ = ["FORGOTTEN", "REMOVED", "differences", "digest", "is_pinned", "resolve_paths", "unpinned"]


REMOVED: dict[str, Any] = {}
"""Settings that are no longer there, with the value at which they did nothing; it stays a part of every digest."""
FORGOTTEN: dict[str, Any] = {"method.horizon": [], "method.smallest_confidence": 0.0}
"""Removed settings that were no part of a digest at this value, since they had been `Added` later."""


def digest(config: ExperimentConfig) -> str:
    """Returns 12 hex digits that differ whenever two configurations compute different results."""
    leaves = dict(REMOVED)
    settings = settings_of(ExperimentConfig)
    for key, value in flatten(config).items():
        setting = settings[key]
        if not setting.role.digested or (setting.added is not None and value == setting.added.before):
            continue
        if setting.open is not None and value == setting.open.value:
            value = setting.open.counts_as
        leaves[key] = _last_parts(value) if Located in setting else value
    leaves["evaluation.also"] = [(one.name, PurePath(one.root).name, one.split) for one in config.evaluation.also]
    if leaves.get("data.digests"):
        del leaves["data.shards"]
    if leaves.get("network.init_sha256"):
        del leaves["network.init"]
    if leaves.get("pretrain.digest"):
        # What a pretraining computes counts, not how the recipe that says so is called.
        del leaves["pretrain.recipe"], leaves["pretrain.overrides"]
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()[:12]


def is_pinned(config: ExperimentConfig) -> bool:
    """Whether the configuration says what its data and weights are, beside where they lie."""
    leaves = flatten(config)
    return any(leaves[key] for key in keys_of(Pinned))


def unpinned(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration as one that was not prepared, or was so before data and weights were pinned."""
    return override(config, {key: flatten(ExperimentConfig())[key] for key in keys_of(Pinned)})


def differences(stored: ExperimentConfig, config: ExperimentConfig) -> list[str]:
    """Returns how what two configurations compute differs, setting by setting; nothing if it is the same.

    What only one of them has pinned is not compared: the other one is older, or did not see the data.
    """
    there, here, settings = flatten(stored), flatten(config), settings_of(ExperimentConfig)
    unknown = {key: flatten(ExperimentConfig())[key] for key in keys_of(Pinned) if not (there[key] and here[key])}
    for key, setting in settings.items():
        if setting.open is not None and setting.open.value in (there[key], here[key]):
            unknown[key] = setting.open.value
    stored, config = override(stored, unknown), override(config, unknown)
    if digest(stored) == digest(config):
        return []
    there, here = flatten(stored), flatten(config)

    def differs(key: str) -> bool:
        values = there.get(key), here.get(key)
        one, other = map(_last_parts, values) if Located in settings[key] else values
        return settings[key].role.digested and one != other

    keys = [key for key in {**there, **here} if differs(key)]
    # The same data may lie elsewhere, and other data at the same place; where it is known, the content tells.
    if there["data.digests"]:
        keys = [key for key in keys if key != "data.shards"]
    return [f"{key} {_said(there, key)} there, {_said(here, key)} here" for key in keys]


def _said(leaves: dict[str, Any], key: str) -> str:
    value = leaves.get(key)
    return value if isinstance(value, str) else "–" if key not in leaves else f"{value}"


def _last_parts(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tuple):
        return [PurePath(part).name for part in value]
    path = PurePath(value)
    # Results are all called alike: `runs/one-shot/network.safetensors`.
    return f"{path.parent.name}/{path.name}" if path.name == "network.safetensors" else path.name


def resolve_paths(config: ExperimentConfig, base: Path) -> ExperimentConfig:
    """Returns the configuration with relative paths taken from `base`: workers run in other folders. URIs stay."""

    def absolute(path: str) -> str:
        return path if "://" in path else str((base / Path(path).expanduser()).resolve())

    init = config.network.init
    changes: dict[str, object] = {
        "storage": absolute(config.storage),
        "data.shards": tuple(absolute(path) for path in config.data.shards),
        "network.init": init if init in INITS else absolute(init),
    }
    changes["evaluation.also"] = tuple(
        dataclasses.replace(one, root=absolute(one.root)) for one in config.evaluation.also
    )
    folders = {
        f"{name}.{key}": getattr(part, key)
        for name, part in (("validation", config.validation), ("evaluation", config.evaluation))
        for key in ("root", "shards")
    }
    folders["data.cache"] = config.data.cache
    if config.pretrain is not None:
        folders["pretrain.storage"] = config.pretrain.storage
    for key, folder in folders.items():
        changes[key] = None if folder is None else absolute(folder)
    return override(config, changes)
