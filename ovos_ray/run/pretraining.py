"""Pretraining as a stage: computed once per digest of its configuration, and shared by every run that asks for it.

STORAGE/pretraining/DIGEST/    the run folder of one pretraining (see `run_folder.py`)
STORAGE/pretraining/DIGEST/lock    held by whoever trains it (in a bucket a lease, see `lock.py`); others wait, and it
                                   ends with its holder

The digest is part of the digest of every run that starts from it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovos_ray.config import INITS, ExperimentConfig, override
from ovos_ray.config.digest import digest, resolve_paths, unpinned
from ovos_ray.config.recipes import make
from ovos_ray.config.roles import Inherited
from ovos_ray.config.settings import keys_of
from ovos_ray.errors import ConfigError
from ovos_ray.run.pin import pin_content
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

if TYPE_CHECKING:  # what a stage is must be told without torch, at once
    from torch import Tensor

__all__ = [
    "pin",
    "pretrained_weights",
    "pretraining_folder",
    "pretraining_request",
    "pretraining_stage",
    "pretraining_tags",
]


def pin(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration with digests of its data, weights and pretraining, as far as these exist.

    Weights given as a file take the place of a pretraining: `network.init=cutie-base.pth` needs no stage 0.

    Raises:
        ConfigError: The pretraining's recipe is not found, or cannot be changed as asked.
    """
    config = pin_content(config)
    if config.pretrain is None:
        return config
    if config.network.init not in INITS:
        return dataclasses.replace(config, pretrain=None)
    storage = config.pretrain.storage or f"{config.storage.rstrip('/')}/pretraining"
    return override(config, {"pretrain.digest": _key(_stage(config), storage), "pretrain.storage": storage})


def _key(stage: ExperimentConfig, storage: str) -> str:
    """Returns the name of a pretraining's folder: its digest, or the one without data that an older version left."""
    key, former = digest(stage), digest(unpinned(stage))
    older = RunFolder.at(storage, former)
    if key == former or not older.claimed or RunFolder.at(storage, key).claimed:
        return key
    there, here = older.config().data.shards, resolve_paths(stage, Path.cwd()).data.shards
    # Two data sets of one name had one digest; the path, as far as it still leads somewhere, tells them apart.
    return former if there == here or not all(Path(path).exists() for path in there) else key


def pretraining_stage(config: ExperimentConfig, base: Path | None = None) -> ExperimentConfig | None:
    """Returns the full configuration of the pretraining that a run starts from, or None.

    Args:
        config: As `pin` returns it.
        base: Makes the recipe's relative paths absolute, as `resolve_paths` does for the run's own; None leaves them.

    Raises:
        ConfigError: See `pin`; also if the recipe has changed since.
    """
    if config.pretrain is None:
        return None
    stage = _stage(config)
    folder = pretraining_folder(config)
    if config.pretrain.digest not in (digest(stage), digest(unpinned(stage))):
        raise ConfigError(
            f"pretrain.recipe = {config.pretrain.recipe!r} has digest {digest(stage)}, the run was prepared with "
            f"{config.pretrain.digest}",
            "start the command again",
        )
    stage = override(stage, {"storage": config.pretrain.storage, "name": folder.name})
    return stage if base is None else resolve_paths(stage, base)


def _stage(config: ExperimentConfig) -> ExperimentConfig:
    assert config.pretrain is not None
    inherited = {key: functools.reduce(getattr, key.split("."), config) for key in keys_of(Inherited)}
    stage = override(_recipe(config.pretrain.recipe), inherited)
    if stage.pretrain is not None:  # a stage may have a stage of its own; all lie side by side
        storage = config.pretrain.storage or f"{config.storage.rstrip('/')}/pretraining"
        stage = override(stage, {"pretrain.storage": storage})
    return pin(override(stage, config.pretrain.overrides))


@functools.lru_cache(maxsize=32)
def _recipe(path: str) -> ExperimentConfig:
    return make(path, ExperimentConfig)


def pretraining_folder(config: ExperimentConfig) -> RunFolder:
    """Returns where the pretraining of a run lies, whether it exists yet or not.

    Raises:
        ConfigError: The run has none, or was not prepared by `pin`.
    """
    if config.pretrain is None or not config.pretrain.digest or config.pretrain.storage is None:
        raise ConfigError("this run has no pretraining, or its digest is not filled in")
    return RunFolder.at(config.pretrain.storage, config.pretrain.digest)


def pretrained_weights(config: ExperimentConfig) -> dict[str, Tensor]:
    """Loads the weights that the pretraining of a run has left.

    Raises:
        FileNotFoundError: It is not finished.
    """
    import safetensors.torch

    content = pretraining_folder(config).storage.read("network.safetensors")
    weights: dict[str, Tensor] = safetensors.torch.load(content)
    return weights


def pretraining_tags(config: ExperimentConfig) -> dict[str, str]:
    """Returns the MLflow tags that tie a run to the pretraining it starts from; none if there is none."""
    if config.pretrain is None:
        return {}
    result = pretraining_folder(config).result() or {}
    run = {"ovos.pretraining_run": result["tracking_run"]} if result.get("tracking_run") else {}
    return {"ovos.pretraining_digest": config.pretrain.digest, **run}


def pretraining_request(
    config: ExperimentConfig,
    base: Path,
    *,
    tags: Mapping[str, str] | None = None,
    watcher: Callable[[dict[str, Any]], None] | None = None,
    alone: bool = False,
) -> RunRequest | None:
    """Returns the request of the stage that a run starts from, None if there is none.

    Runs that start from the same stage get the same request. Make it in the driver, where recipes and relative paths
    are those the user sees.

    Args:
        config: Of the run, prepared by `pin`.
        base: Where relative paths in the stage's recipe start.
        tags: MLflow tags, such as `provenance_tags()`.
        watcher: See `RunRequest.watcher`.
        alone: See `RunRequest.alone`.
    """
    stage = pretraining_stage(config, base)
    if stage is None or config.pretrain is None:
        return None
    return RunRequest(
        config=stage,
        experiment="pretraining",
        run_key=f"pretraining:{stage.storage}:{stage.name}",
        tags={**(tags or {}), "ovos.kind": "pretraining", "ovos.trainable": config.pretrain.recipe},
        watcher=watcher,
        pretraining=pretraining_request(stage, base, tags=tags, watcher=watcher, alone=alone),
        shared=True,
        alone=alone,
    )
