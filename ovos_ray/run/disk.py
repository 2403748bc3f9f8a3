"""Whether a run's storage has room for what the run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ResourceError
from ovos_ray.run.estimate import checkpoint_bytes
from ovos_ray.train.run_folder import RunFolder

__all__ = ["check_disk"]

_CHECKPOINTS = 3
"""Two are kept, and a third is whole before the first is removed."""


def check_disk(config: ExperimentConfig) -> None:
    """Makes sure that a disk has room for three checkpoints; of a bucket nothing is known.

    Raises:
        ResourceError: It has less; says how much.
    """
    storage = RunFolder.of(config).storage
    if not storage.local:
        return
    place = next(path for path in (Path(storage.root), *Path(storage.root).parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, _CHECKPOINTS * checkpoint_bytes(config)
    if free < needed:
        raise ResourceError(
            f"{config.storage} has {free / 2**20:.1f} MiB free, {_CHECKPOINTS} checkpoints of {config.network.name} "
            f"take {needed / 2**20:.1f} MiB",
            "make room there, or give another storage=…",
        )
