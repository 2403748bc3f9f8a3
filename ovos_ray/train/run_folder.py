"""The folder of one run: its configuration, its checkpoints and, at the end, its result.

NAME/config.json        the resolved configuration and its digest
NAME/checkpoints/       see `checkpoint.py`
NAME/network.safetensors  the resulting weights
NAME/network_ema.safetensors  their moving average, if one is kept; its scores in scores-ema.csv
NAME/scores.csv         J and F per sequence and object, if an evaluation is configured
NAME/predictions/       the masks that were scored
NAME/snapshots/         see `snapshots.py`
NAME/result.json        written last; a run that has it is finished
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.digest import digest
from ovos_ray.config.overrides import flatten, from_dict, to_dict
from ovos_ray.errors import CheckpointError
from ovos_ray.io import Storage
from ovos_ray.train.checkpoint import CheckpointStore

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it has computed.

    Attributes:
        storage: Folder `config.storage`/`config.name`.
    """

    storage: Storage

    @classmethod
    def of(cls, config: ExperimentConfig) -> RunFolder:
        """Returns the folder that a configuration names."""
        return cls.at(config.storage, config.name)

    @classmethod
    def at(cls, storage: str, name: str) -> RunFolder:
        """Returns the folder of a run by its storage and name."""
        return cls(Storage(storage) / name)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.storage.folder.rstrip("/").rpartition("/")[2]

    def checkpoints(self, keep: int = 2) -> CheckpointStore:
        """Returns the store of the run's checkpoints."""
        return CheckpointStore(self.storage / "checkpoints", keep=keep)

    def claim(self, config: ExperimentConfig) -> None:
        """Writes the configuration, or checks that the folder belongs to the same one.

        Raises:
            CheckpointError: The folder holds a run that computes something else; says which keys differ.
        """
        if not self.storage.exists("config.json"):
            content = {"digest": digest(config), "config": to_dict(config)}
            self.storage.write(json.dumps(content, indent=2).encode(), "config.json")
            return
        stored = self.config()
        if digest(stored) != digest(config):
            old, new = flatten(stored), flatten(config)
            differing = [
                f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in new if old.get(key) != new[key]
            ]
            raise CheckpointError(
                f"{self.storage.folder} holds another configuration ({'; '.join(differing[:5])})",
                "give this run another name=…, or remove that folder",
            )

    def config(self) -> ExperimentConfig:
        """Returns the stored configuration.

        Raises:
            CheckpointError: It is damaged.
            ConfigError: It holds what no setting of this version is.
        """
        return from_dict(ExperimentConfig, self._read("config.json").get("config", {}))

    def result(self) -> dict[str, Any] | None:
        """Returns what the finished run wrote, or None while it is not finished.

        Raises:
            CheckpointError: It is damaged.
        """
        return self._read("result.json") if self.storage.exists("result.json") else None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self.storage.read(name))
            if not isinstance(content, dict):
                raise ValueError(f"a {type(content).__name__}")
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self.storage.path(name)} is damaged: {error}",
                "bring it back from a copy, or remove it and run the same command again: checkpoints are not touched",
            ) from error
        return content

    def finish(self, result: dict[str, Any]) -> None:
        """Marks the run as finished."""
        self.storage.write(json.dumps(result, indent=2).encode(), "result.json")
