"""How fast this machine turns shards into training clips, with and without Ray Data."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.digest import resolve_paths
from ovos_ray.errors import ConfigError

__all__ = ["ingest_speed"]

_SECONDS = 8.0


def ingest_speed(config: ExperimentConfig, shards: Sequence[str]) -> Iterator[str]:
    """Yields clips per second of one thread of this process and of Ray Data on all CPUs of a local cluster.

    Args:
        config: Says clip length, crop size and augmentation; its batches are decoded, nothing is trained.
        shards: Folders to read.

    Raises:
        ConfigError: No shards are given.
    """
    from ovos_ray.on_ray.room import this_node
    from ovos_ray.on_ray.session import ray_session
    from ovos_ray.on_ray.stream import RankStream, stream_spec
    from ovos_ray.run.here import local_stream

    if not shards:
        raise ConfigError("--bench-ingest needs data", "add --shards FOLDER")
    config = resolve_paths(override(config, {"data.shards": tuple(shards)}), Path.cwd())
    config = override(config, {"data.multipliers": (), "data.frame_intervals": (), "train.steps": 1_000_000})
    data = config.data
    yield f"clips of {data.clip_length} frames at {data.crop_size} pixels"
    speed = _speed(local_stream(config).batches(), data.batch_size)
    yield f"{speed:.1f} clips/s on one thread"
    with ray_session():
        num_cpus = int(this_node()["CPU"])
        speed = _speed(RankStream(stream_spec(config), 0, 1, 0, num_cpus).batches(), data.batch_size)
    yield f"{speed:.1f} clips/s with Ray Data"


def _speed(batches: Iterable[Any], batch_size: int) -> float:
    """Clips per second, the first batch aside."""
    stream = iter(batches)
    next(stream)
    began = time.perf_counter()
    for count in itertools.count(1):
        next(stream)
        elapsed = time.perf_counter() - began
        if elapsed > _SECONDS:
            return count * batch_size / elapsed
    raise AssertionError
