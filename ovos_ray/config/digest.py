"""What a configuration computes, wherever its files lie: its digest, and its paths made absolute."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from ovos_ray.config import INITS, ExperimentConfig
from ovos_ray.config.overrides import flatten, override
from ovos_ray.config.roles import Located, settings_of

__all__ = ["digest", "resolve_paths"]


def digest(config: ExperimentConfig) -> str:
    """Returns 12 hex digits that differ whenever two configurations compute different results."""
    leaves: dict[str, Any] = {}
    settings = settings_of(ExperimentConfig)
    for key, value in flatten(config).items():
        setting = settings[key]
        if not setting.role.digested or (setting.added is not None and value == setting.added.before):
            continue
        leaves[key] = _last_parts(value) if Located in setting else value
    leaves["evaluation.also"] = [(one.name, PurePath(one.root).name, one.split) for one in config.evaluation.also]
    if leaves.get("pretrain.digest"):
        # What a pretraining computes counts, not how the recipe that says so is called.
        del leaves["pretrain.recipe"], leaves["pretrain.overrides"]
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()[:12]


def _last_parts(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tuple):
        return [PurePath(part).name for part in value]
    path = PurePath(value)
    # Results are all called alike: `runs/one-shot/network.safetensors`.
    return f"{path.parent.name}/{path.name}" if path.name == "network.safetensors" else path.name


def resolve_paths(config: ExperimentConfig, base: Path) -> ExperimentConfig:
    """Returns the configuration with paths made absolute, since workers run in other folders. URIs stay as they are.

    Args:
        config: As written by the user.
        base: The folder relative paths start from.
    """

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
    folders = {"validation.root": config.validation.root, "evaluation.root": config.evaluation.root}
    if config.pretrain is not None:
        folders["pretrain.storage"] = config.pretrain.storage
    for key, folder in folders.items():
        changes[key] = None if folder is None else absolute(folder)
    return override(config, changes)
