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
from ovos_ray.config.digest import differences, is_pinned
from ovos_ray.config.stored import read_stored, to_store
from ovos_ray.errors import CheckpointError
from ovos_ray.storage import Storage
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

    @property
    def claimed(self) -> bool:
        """Whether there is a run here, begun or finished."""
        return self.storage.exists("config.json")

    def differences(self, config: ExperimentConfig) -> list[str]:
        """Returns how the run that is here differs in what it computes; nothing if it does not, or there is none."""
        return differences(self.config(), config) if self.claimed else []

    def check(self, config: ExperimentConfig) -> None:
        """Checks that the folder is free, or belongs to the same configuration.

        Raises:
            CheckpointError: It holds a run that computes something else; says which settings differ.
        """
        if differing := self.differences(config):
            raise CheckpointError(
                f"{self.storage.folder} holds another run: {'; '.join(differing[:5])}",
                "give this run another name=…, or set the other one aside with --replace",
            )

    def finished(self, config: ExperimentConfig) -> bool:
        """Whether the run that is here has finished, and computes what the configuration says."""
        return self.claimed and self.result() is not None and not self.differences(config)

    def claim(self, config: ExperimentConfig) -> bool:
        """Makes the folder that of a configuration.

        Returns:
            Whether the run here is from before its data and weights were pinned, which they are from now on.

        Raises:
            CheckpointError: See `check`.
        """
        self.check(config)
        older = self.claimed and is_pinned(config) and not is_pinned(self.config())
        if older or not self.claimed:
            self.storage.write(json.dumps(to_store(config), indent=2).encode(), "config.json")
        return older

    def config(self) -> ExperimentConfig:
        """Returns the stored configuration.

        Raises:
            CheckpointError: It is damaged.
            ConfigError: It holds what no setting of this version is.
        """
        stored = self._read("config.json")
        return read_stored(stored.get("config", {}), stored.get("schema", 1))

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
