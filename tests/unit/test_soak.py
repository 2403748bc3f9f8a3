"""A long run takes no more memory at its end than at its beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import config_of, make_shards, train_alone

pytestmark = [pytest.mark.nightly, pytest.mark.slow]


def test_two_thousand_steps_with_checkpoints_and_tracking_take_no_more_memory(tmp_path: Path) -> None:
    memory: dict[int, int] = {}

    def watch(record: dict[str, Any]) -> None:
        memory[record["step"]] = psutil.Process().memory_info().rss

    config = config_of(
        make_shards(tmp_path / "data"),
        tmp_path,
        **{
            "train.steps": 2000,
            "train.log_every": 20,
            "train.checkpoint_every": 100,
            "data.batch_size": 1,
            "data.crop_size": 32,
            "network.name": "xmem-tiny",
            "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
        },
    )
    train_alone(config, watcher=watch)
    # The first steps pay for MLflow's tables, allocators and caches.
    begin = [memory[step] for step in range(400, 600, 20)]
    end = [memory[step] for step in range(1800, 2000, 20)]
    assert max(end) < 1.05 * max(begin), f"{max(begin) / 2**20:.0f} MiB grew to {max(end) / 2**20:.0f} MiB"
