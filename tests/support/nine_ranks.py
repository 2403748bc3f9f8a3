"""Nine ranks that decode at a time on few CPUs: `nine_ranks.py FOLDER`, by its test; `benchmarks/many_ranks.py` too.

Nine ranks hold a quarter of a CPU and a GPU each of a node of 8 CPUs and 9 GPUs, as far as Ray counts them. Five whole
CPUs are free then, less than one for each.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.data
from processes import wait_for
from runs import config_of, make_shards

from ovos_ray.config import ExperimentConfig
from ovos_ray.on_ray import stream
from ovos_ray.run.resources import decoders_of_worker

RANKS, CPUS = 9, 8


class ClusterWide(stream.RankStream):
    """As ranks decoded once: each block in a task that asks for one of the cluster's CPUs."""

    def _decoded(self, blocks: ray.data.Dataset, decode: Callable[..., dict[str, Any]]) -> ray.data.Dataset:
        return blocks.map_batches(decode, batch_size=None)


def many(root: Path) -> ExperimentConfig:
    """A run of nine workers, with four clips a step for each."""
    changes = {"data.batch_size": 4 * RANKS, "train.num_workers": RANKS, "train.steps": 100_000}
    shares = {"train.cpus_per_worker": 0.25, "train.gpus_per_worker": 1.0}
    return config_of(root / "shards", root / "runs", **changes, **shares)


class Rank:
    """One rank, which trains nothing: it takes batches as fast as they come, and notes when.

    Args:
        config: Of the run.
        rank: Which one.
        kind: How it decodes.
        meet: A folder where every block waits for one of each other rank; None: none waits.
    """

    def __init__(
        self, config: ExperimentConfig, rank: int, kind: type[stream.RankStream], meet: Path | None = None
    ) -> None:
        if meet is not None:
            stream._decode_block = functools.partial(_met, meet=meet)
        decoders = decoders_of_worker(config, {"CPU": CPUS, "GPU": RANKS})
        self._batches = kind(stream.stream_spec(config), rank, RANKS, 0, decoders).batches()
        self._arrived: list[float] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        for _ in self._batches:
            self._arrived.append(time.time())

    def arrived(self) -> list[float]:
        """Returns when its batches came, in seconds since 1970."""
        return self._arrived


_decode_block = stream._decode_block


def _met(block: Any, *, meet: Path, rank: int, **more: Any) -> dict[str, Any]:
    (meet / f"{rank} {os.getpid()}").touch()
    wait_for(functools.partial(_all_ranks_came, meet), 300)
    return _decode_block(block, rank=rank, **more)


def _ranks(meet: Path) -> set[str]:
    return {met.name.split()[0] for met in meet.iterdir()}


def _all_ranks_came(meet: Path) -> bool:
    return len(_ranks(meet)) == RANKS


def start(config: ExperimentConfig, kind: type[stream.RankStream], meet: Path | None = None) -> list[Any]:
    """Starts all ranks."""
    actor = ray.remote(Rank).options(num_cpus=config.train.cpus_per_worker)
    return [actor.remote(config, rank, kind, meet) for rank in range(RANKS)]


def connect() -> None:
    """Starts a cluster of 8 CPUs, whatever the machine has."""
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    options = {"include_dashboard": False, "object_store_memory": 500 * 2**20, "log_to_driver": False}
    ray.init("local", num_cpus=CPUS, runtime_env={"env_vars": variables}, **options)


def _have_come(meet: Path, number: int) -> bool:
    return len(list(meet.iterdir())) >= number


def _have_arrived(ranks: list[Any]) -> bool:
    return all(ray.get([rank.arrived.remote() for rank in ranks]))


def main(root: Path) -> None:
    make_shards(root)
    connect()
    config, told = many(root), {}
    for kind in (ClusterWide, stream.RankStream):
        meet = root / kind.__name__
        meet.mkdir()
        ranks = start(config, kind, meet)
        if kind is ClusterWide:  # no more tasks than CPUs are free for, some of them of one rank
            wait_for(functools.partial(_have_come, meet, 5), 300)
            time.sleep(10)  # for those that must not come
        else:
            wait_for(functools.partial(_all_ranks_came, meet), 300)
        told[kind.__name__] = len(_ranks(meet))
        if kind is stream.RankStream:
            wait_for(functools.partial(_have_arrived, ranks), 300)
        for rank in ranks:
            ray.kill(rank)
    print(json.dumps(told))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
