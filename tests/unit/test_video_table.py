"""The columns of a large index: the same entries, the same plan, and no more memory than its file."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import pickle
import shutil
import weakref
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from davis_folder import make_davis

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards import index as index_module
from ovos_ray.data.shards.index import ShardIndex, VideoEntry
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.verify import verify
from ovos_ray.data.shards.video_table import VideoTable, _joined, _split
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack
from ovos_ray.storage import Storage


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("table")
    pack(open_dataset(make_davis(base / "davis", num_videos=5)), base / "shards", labels="all", shard_bytes=1)
    return base / "shards"


@pytest.fixture
def columnar(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(packed, tmp_path / "columnar"))
    ShardIndex.load(packed).save(Storage(str(folder)), columnar=True)
    return folder


def test_an_index_in_columns_says_what_the_json_says(packed: Path, columnar: Path) -> None:
    plain, table = ShardIndex.load(packed), ShardIndex.load(columnar)
    assert isinstance(table.videos, VideoTable)
    assert isinstance(plain.videos, tuple)
    assert tuple(table.videos) == plain.videos
    assert dataclasses.replace(table, videos=plain.videos) == plain == pickle.loads(pickle.dumps(table))
    assert table.videos[-1] == plain.videos[-1] == table.video("v4")
    assert tuple(table.outlines()) == tuple(plain.outlines())
    assert json.loads((columnar / "index.json").read_text())["videos"]["number"] == 5, "the rest stays easy to read"
    for name in ("v", "v44", ""):
        with pytest.raises(DataError, match="no video"):
            table.video(name)


@pytest.mark.parametrize("settings", [{}, {"data.clip_start": "any", "data.multipliers": (3,)}])
def test_the_plan_is_the_same_function(packed: Path, columnar: Path, settings: dict[str, Any]) -> None:
    data = override(ExperimentConfig(), {"data.clip_length": 3, "data.batch_size": 4, **settings}).data
    a, b = (Plan([ShardIndex.load(folder)], data, seed=5, steps=20) for folder in (packed, columnar))
    assert [a.clip(position) for position in range(80)] == [b.clip(position) for position in range(80)]
    assert (a.epoch_length, a.excluded) == (b.epoch_length, b.excluded)
    other = Plan([ShardIndex.load(columnar)], data, seed=6, steps=20)
    assert a.clip(0) != other.clip(0)


def test_plans_and_readers_of_a_process_hold_one_index_which_goes_with_them(packed: Path, columnar: Path) -> None:
    data = override(ExperimentConfig(), {"data.clip_length": 3, "data.shards": (str(columnar),)}).data
    held = [ShardReader(columnar), ShardReader(columnar), *(Plan.load(data, seed=seed, steps=9) for seed in (0, 1))]
    index = weakref.ref(held[0].index)
    assert {id(one.index if isinstance(one, ShardReader) else one._indices[0]) for one in held} == {id(index())}
    shutil.copy(packed / "index.json", columnar / "index.json")  # packed again
    assert isinstance(ShardReader(columnar).index.videos, tuple)
    held.clear()
    gc.collect()
    assert index() is None


def test_rows_are_read_and_verified_by_either(packed: Path, columnar: Path) -> None:
    assert ShardReader(columnar).read("v1", [2, 5]) == ShardReader(packed).read("v1", [2, 5])
    assert verify(columnar) == []
    file = columnar / "frames-00002.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    assert [problem.file for problem in verify(columnar)] == [file.name]


def test_pack_writes_columns_where_there_are_many_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_dataset(make_davis(tmp_path / "davis"))
    plain = pack(source, tmp_path / "plain")
    monkeypatch.setattr(index_module, "_COLUMNAR_FROM", 3)
    assert pack(source, tmp_path / "columnar").digest == plain.digest
    assert tuple(ShardIndex.load(tmp_path / "columnar").videos) == plain.videos
    assert pack(source, tmp_path / "columnar").digest == plain.digest, "packing again returns at once"
    assert _table(tmp_path / "columnar").is_file()


@pytest.mark.parametrize(
    "names",
    [["00000", "00005", "00010"], ["1", "2"], ["b", "a"], ["9", "10", "11"], ["09", "10", "11"], ["7", "6", "5"]],
)
def test_names_come_back(names: list[str]) -> None:
    assert _split(_joined(names), len(names)) == tuple(names)


def _table(folder: Path) -> Path:
    return next(folder.glob("videos-*.parquet"))


def _rewrite(folder: Path, column: str, values: list[Any], **options: Any) -> None:
    file = _table(folder)
    table = pq.read_table(file)
    field = table.schema.field(column)
    changed = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    plain = {"compression": "none", "use_dictionary": False}
    pq.write_table(changed, file, **{**plain, **options})
    _sign(folder)


def _sign(folder: Path) -> None:
    """Makes the index name the table as it is now, as a stranger's would."""
    header = json.loads((folder / "index.json").read_text())
    header["videos"]["digest"] = hashlib.blake2b(_table(folder).read_bytes(), digest_size=16).hexdigest()
    (folder / "index.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("column", "values", "named"),
    [
        ("shard", [0, 1, 2, 3, 99], "shard"),
        ("shard", [0, 1, 2, 3, -1], "shard"),
        ("first_row", [0, 0, 0, 0, 1], "first_row"),
        ("num_frames", [6, 6, 6, 6, -1], "first_row"),
        ("height", [48, 48, 48, 48, 2**30], "size"),
        ("name", ["v0", "v1", "v2", "v3", "v3"], "names"),
        ("name", ["v0", "v1", "v2", "v3", "v30/../../x"], "another folder"),
        ("frame_names", ["00000//1"] * 4 + ["a/../b/c/d/e"], "frame"),
        ("frame_names", ["00000//1"] * 4 + ["0/1"], "num_frames of 'v4'"),
        ("num_frames", [6, 6, 6, 6, 2**21], "num_frames"),
        ("label_frames", [[0]] * 5, "num_objects"),
        ("boxes", [[]] * 5, "boxes"),
    ],
)
def test_columns_that_say_the_impossible_are_refused(
    columnar: Path, column: str, values: list[Any], named: str
) -> None:
    _rewrite(columnar, column, values)
    header = json.loads((columnar / "index.json").read_text())
    header["files"][4]["num_rows"] = 2**40 if values[4] == 2**21 else 6
    (columnar / "index.json").write_text(json.dumps(header))
    with pytest.raises(DataError, match=named):
        list(ShardIndex.load(columnar).videos)
    with pytest.raises(DataError, match=named):
        verify(columnar)


def test_a_table_that_expands_is_missing_or_cut_is_refused(columnar: Path) -> None:
    file = _table(columnar)
    whole = file.read_bytes()
    for options in ({"compression": "zstd"}, {"use_dictionary": True}):
        _rewrite(columnar, "height", [48] * 5, **options)
        with pytest.raises(DataError, match="any memory"):
            ShardIndex.load(columnar)
    for taken in (*range(0, len(whole) - 1, 61), len(whole) - 1):
        file.write_bytes(whole[:taken])
        _sign(columnar)
        with pytest.raises(DataError, match="videos-"):
            ShardIndex.load(columnar)
    file.unlink()
    with pytest.raises(DataError, match="missing"):
        ShardIndex.load(columnar)


def test_an_entry_is_made_only_when_it_is_asked_for(columnar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    original = VideoEntry.check
    monkeypatch.setattr(VideoEntry, "check", lambda self, files: (made.append(self.name), original(self, files))[1])
    index = ShardIndex.load(columnar)
    Plan([index], override(ExperimentConfig(), {"data.clip_length": 3}).data, seed=0, steps=1)
    assert made == []
    index.video("v3")
    assert made == ["v3"]


def test_a_list_of_absences_is_refused_before_it_is_read(columnar: Path) -> None:
    file = _table(columnar)
    table = pq.read_table(file)
    at = table.schema.get_field_index("boxes")
    boxes = pa.array([[None] * 2**22, *[[]] * (len(table) - 1)], pa.list_(pa.int32()))
    pq.write_table(table.set_column(at, "boxes", boxes), file, compression="none", use_dictionary=False)
    assert file.stat().st_size < 2**14
    _sign(columnar)
    allocated = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match="columns"):
        ShardIndex.load(columnar)
    assert pa.default_memory_pool().max_memory() - allocated < 2**20
