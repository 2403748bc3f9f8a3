"""Samples that cannot be read: listed whole by any number of workers and launches, and limited in every engine."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import config_of, local_stream, make_shards, run_ranks, train_alone
from torch import Tensor
from torch import distributed as dist

from ovos_ray.config import ExperimentConfig
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.errors import DataError
from ovos_ray.run.here import fit_here
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

pytestmark = pytest.mark.slow
SKIP = {"data.on_bad_row": "skip", "data.max_bad_fraction": 0.5}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Shards in which the labelled frame of one video has a flipped byte, and that video's name."""
    root = tmp_path_factory.mktemp("data")
    shards = make_shards(root)
    index = ShardIndex.load(shards)
    entry = index.videos[2]
    path = shards / index.files[entry.shard].name
    jpeg = ShardReader(shards).read(entry.name, [0])[0].jpeg
    content = bytearray(path.read_bytes())
    content[content.index(jpeg) + len(jpeg) // 2] ^= 0xFF
    path.write_bytes(content)
    return shards, entry.name


def bad_positions(config: ExperimentConfig, video: str) -> set[int]:
    plan = local_stream(config).plan
    return {p for p in range(config.train.steps * config.data.batch_size) if plan.clip(p).video == video}


def listed(config: ExperimentConfig) -> list[int]:
    result = RunFolder.of(config).result()
    assert result is not None
    return [position for position, _ in result["bad_samples"]]


class Dying:
    """A stream that ends in an error."""

    def __init__(self, config: ExperimentConfig, after: int) -> None:
        self._stream, self._after = local_stream(config), after
        self.start_step, self.problems = self._stream.start_step, self._stream.problems

    def batches(self) -> Iterator[dict[str, Tensor]]:
        yield from itertools.islice(self._stream.batches(), self._after)
        raise RuntimeError("the process dies")


def test_a_resumed_run_lists_those_of_all_its_launches(damaged: tuple[Path, str], tmp_path: Path) -> None:
    shards, video = damaged
    config = config_of(shards, tmp_path, **SKIP)
    with pytest.raises(RuntimeError, match="the process dies"):
        train_alone(config, Dying(config, after=5))
    before = {p for p in bad_positions(config, video) if p < 4 * config.data.batch_size}
    assert before, "some are met before the checkpoint of step 4"
    train_alone(config)
    assert listed(config) == sorted(bad_positions(config, video))


def one_rank(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    stream = local_stream(config, rank, workers)
    train_run(RunRequest(config, "none", "none"), stream, rank=rank, world_size=workers)


def test_two_workers_list_those_of_both(damaged: tuple[Path, str], tmp_path: Path) -> None:
    shards, video = damaged
    config = config_of(shards, tmp_path, **SKIP, **{"train.num_workers": 2})
    positions = bad_positions(config, video)
    assert {p % 4 // 2 for p in positions} == {0, 1}, "each worker meets some"
    run_ranks(one_rank, config, tmp_path / "ranks", workers=2)
    assert listed(config) == sorted(positions)


def test_too_many_end_a_run_without_ray(damaged: tuple[Path, str], tmp_path: Path) -> None:
    shards, _ = damaged
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    changes: dict[str, Any] = {**SKIP, "data.max_bad_fraction": 0.001}
    config = config_of(copy, tmp_path, **changes)
    with pytest.raises(DataError, match=r"of \d+ samples could not be read, more than data.max_bad_fraction = 0.001"):
        fit_here(RunRequest(config, "none", "none"))
    assert RunFolder.of(config).result() is None
