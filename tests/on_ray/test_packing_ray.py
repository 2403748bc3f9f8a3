"""Shards packed by tasks of a cluster: the bytes that one process makes, and errors in our own words."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from davis_folder import make_davis

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import DataError
from ovos_ray.on_ray.packing import on_cluster
from ovos_ray.packing.pack import pack

pytestmark = pytest.mark.ray


def test_tasks_write_the_bytes_that_one_process_writes(tmp_path: Path, ray_cluster: None) -> None:
    source = open_dataset(make_davis(tmp_path / "davis", num_videos=5), "davis2017")
    here = pack(source, tmp_path / "here", shard_bytes=1)
    there = pack(source, tmp_path / "there", shard_bytes=1, runner=partial(on_cluster, num_workers=2), num_threads=2)
    assert there == here
    for file in here.files:
        assert (tmp_path / "there" / file.name).read_bytes() == (tmp_path / "here" / file.name).read_bytes()
    (source.root / "Annotations/480p/v3/00000.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 problem"):
        pack(source, tmp_path / "bad", shard_bytes=1, runner=partial(on_cluster, num_workers=2))
