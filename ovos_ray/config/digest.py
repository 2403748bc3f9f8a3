"""What a configuration computes, wherever its files lie: its digest, and its paths made absolute."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePath

from ovos_ray.config import INITS, ExperimentConfig
from ovos_ray.config.overrides import flatten, override
from ovos_ray.errors import ConfigError

__all__ = ["digest", "resolve_paths", "split_benchmark"]

# These decide where, how fast and how safely a run computes, not what: a run may be resumed with others.
_NOT_DIGESTED = frozenset(
    {
        "name",
        "note",
        "pretrain.storage",
        "segment.generation",
        "segment.member",
        "segment.parent",
        "storage",
        "tracking_uri",
        "train.checkpoint_every",
        "train.cpus_per_worker",
        "train.gpus_per_worker",
        "train.keep_checkpoints",
        "train.log_every",
        "train.max_failures",
        "train.min_workers",
        "train.num_threads",
        "train.num_workers",
        "train.rollout",
        "train.snapshot_every",
    }
)


# Settings that came later: at its default one computes what was computed before there was such a setting.
_LATER = {"data.static_share": ()}

# Of these the last part of the path counts: the same folder lies elsewhere on another machine.
_PATHS = frozenset({"data.shards", "evaluation.root", "network.init", "validation.root"})


def digest(config: ExperimentConfig) -> str:
    """Returns 12 hex digits that differ whenever two configurations compute different results."""
    leaves = {key: value for key, value in flatten(config).items() if key not in _NOT_DIGESTED}
    leaves = {key: value for key, value in leaves.items() if _LATER.get(key, ...) != value}
    leaves["evaluation.also"] = [(name, PurePath(root).name, split) for name, root, split in _also(config)]
    if config.segment is None:
        del leaves["segment"]  # whole runs are called what they were called before there were parts of runs
    if leaves.get("pretrain.digest"):
        # What a pretraining computes counts, not how the recipe that says so is called.
        del leaves["pretrain.recipe"], leaves["pretrain.overrides"]
    for key in _PATHS:
        value = leaves[key]
        if isinstance(value, tuple):
            leaves[key] = [PurePath(part).name for part in value]
        elif value is not None:
            path = PurePath(value)
            # Results are all called alike: `runs/one-shot/network.safetensors`.
            leaves[key] = f"{path.parent.name}/{path.name}" if path.name == "network.safetensors" else path.name
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()[:12]


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
    changes["evaluation.also"] = tuple(f"{name}={absolute(root)}:{split}" for name, root, split in _also(config))
    folders = {"validation.root": config.validation.root, "evaluation.root": config.evaluation.root}
    if config.pretrain is not None:
        folders["pretrain.storage"] = config.pretrain.storage
    for key, folder in folders.items():
        changes[key] = None if folder is None else absolute(folder)
    return override(config, changes)


def _also(config: ExperimentConfig) -> list[tuple[str, str, str]]:
    """Returns (name, folder, split) of the further datasets to score."""
    return [split_benchmark(text) for text in config.evaluation.also]


def split_benchmark(text: str) -> tuple[str, str, str]:
    """Reads `NAME=FOLDER` or `NAME=FOLDER:SPLIT`; returns name, folder and split (`val` if none is given).

    Raises:
        ConfigError: It is of another form.
    """
    match = re.fullmatch(r"([\w.-]+)=(.+?)(?::([\w.-]+))?", text)
    if match is None:
        raise ConfigError(f"evaluation.also = {text!r} names no dataset", "write NAME=FOLDER or NAME=FOLDER:SPLIT")
    return match[1], match[2], match[3] or "val"
