"""Shard indices of strangers: whatever an `index.json` says is refused by name or is safe to use."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from davis_folder import make_davis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.shard_file import SCHEMA, row_checksum
from ovos_ray.data.shards.shard_folder import ShardFolder
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("stranger")
    pack(open_dataset(make_davis(base / "davis")), base / "shards")
    return base / "shards"


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def _edit(shards: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((shards / "index.json").read_text())
    change(value)
    (shards / "index.json").write_text(json.dumps(value))


def _file(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["files"][0].update(values)


def _video(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["videos"][0].update(values)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_file(name="/etc/passwd"), "absolute"),
        (_file(name="../frames-00000.parquet"), "slash"),
        (_file(name=7), "not text"),
        (_file(num_rows=0), "num_rows"),
        (_video(name="../../victim"), "another folder"),
        (_video(name="v\x1b[31m"), "control character"),
        (_video(first_row=-5), "first_row"),
        (_video(first_row=13), "first_row"),
        (_video(shard=99), "shard"),
        (_video(shard=True), "shard"),
        (_video(num_frames=10**9), "num_frames"),
        (_video(num_frames="6"), "num_frames"),
        (_video(height=0), "height"),
        (_video(height=2**20, width=2**20), "width"),
        (_video(frame_names=["a/../../b"] * 6), "slash"),
        (_video(label_frames=[99]), "label frame"),
        (_video(objects={"0": [[1, 5, 5, 5, 5, 3]]}), "object"),
        (_video(objects={"0": [[300, 0, 0, 5, 5, 3]]}), "object"),
        (_video(objects={"3": []}), "objects"),
        (lambda index: index.update(rows_per_group=0), "rows_per_group"),
        (lambda index: index.update(rows_per_group=2.5), "rows_per_group"),
        (lambda index: index.update(frame_interval=0), "frame_interval"),
        (lambda index: index.update(labels="some"), "labels"),
        (lambda index: index.update(surprise=1), "surprise"),
        (lambda index: index["videos"].append(index["videos"][0]), "two of one name"),
        (lambda index: index["budget"].update(total_frames=-1), "budget"),
    ],
)
def test_an_index_that_says_the_impossible_is_refused(
    shards: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    last_video = len(json.loads((shards / "index.json").read_text())["videos"]) - 1
    _edit(shards, lambda index: index["videos"].insert(0, index["videos"].pop(last_video)))  # the one with no row after
    _edit(shards, change)
    with pytest.raises(DataError, match=named) as error:
        ShardIndex.load(shards)
    assert "index.json" in error.value.message
    with pytest.raises(DataError, match=named):
        verify(shards)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000, '{"version": 1}', "\x00", '{"version": "1"}'])
def test_what_is_no_index_is_refused(shards: Path, text: str) -> None:
    (shards / "index.json").write_text(text)
    with pytest.raises(DataError, match="index"):
        ShardIndex.load(shards)


@pytest.mark.parametrize("options", [{"compression": "zstd", "use_dictionary": False}, {"compression": "none"}])
def test_a_shard_that_expands_is_refused_before_it_is_read(shards: Path, options: dict[str, Any]) -> None:
    """A few hundred bytes for each of these frames, or one frame that is said once."""
    file = shards / "frames-00000.parquet"
    table = pq.read_table(file)
    at = table.schema.get_field_index("jpeg")
    frames = pa.array([bytes(2**20)] * table.num_rows, pa.binary())
    pq.write_table(table.set_column(at, SCHEMA.field("jpeg"), frames), file, **options)
    assert file.stat().st_size < 2 * 2**20
    video = ShardIndex.load(shards).videos[0].name
    allocated = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="may take any memory"):
        ShardReader(shards).read(video, [0])
    (problem,) = verify(shards)
    assert "may take any memory" in str(problem)
    assert pa.total_allocated_bytes() - allocated < 2**20


def test_what_is_absent_a_million_times_is_refused_before_it_is_read(shards: Path) -> None:
    """Rows of nothing take no room in a file, and any room in memory."""
    file = shards / "frames-00000.parquet"
    absent = pa.table({name: pa.nulls(2**22, pa.string()) for name in SCHEMA.names})
    pq.write_table(absent, file, compression="none", use_dictionary=False, row_group_size=2**22, write_statistics=False)
    assert file.stat().st_size < 2**17
    _edit(shards, lambda index: index.update(rows_per_group=2**22))
    _edit(shards, _file(num_rows=2**22))
    allocated = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match="columns"):
        ShardReader(shards).read(ShardIndex.load(shards).videos[0].name, [0])
    assert "columns" in str(verify(shards)[0])
    assert pa.default_memory_pool().max_memory() - allocated < 2**20


def test_neither_digest_nor_names_of_rows_lead_out_of_the_cache(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksums of rows are right: a stranger writes them, too."""
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "home" / "cache"))
    file = shards / "frames-00000.parquet"
    rows = pq.read_table(file).to_pylist()
    for row in rows:
        row["name"] = "../../../../../../victim"
        row["checksum"] = row_checksum(row["video"], row["frame"], row["name"], row["jpeg"], row["label"])
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="none", use_dictionary=False)
    _edit(shards, lambda index: index.update(digest="../../../victim"))
    before = {path for path in tmp_path.rglob("*") if tmp_path / "home" not in path.parents}
    folder = ShardFolder(shards)
    name = folder.video_names("train")[0]
    with contextlib.suppress(DataError):
        video = folder.video("train", name)
        assert all((tmp_path / "home" / "cache") in path.parents for path in video.frames)
    outside = {path for path in tmp_path.rglob("*") if (tmp_path / "home" / "cache") not in path.parents}
    assert outside - before <= {tmp_path / "home", tmp_path / "home" / "cache"}


def test_a_strangers_frames_are_not_taken_for_those_of_shards_with_that_digest(
    packed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    assert ShardFolder(shards).index.digest == ShardFolder(packed).index.digest
    assert ShardFolder(shards).root != ShardFolder(packed).root
    assert ShardFolder(shards).root == ShardFolder(shards).root


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_index_ends_in_an_unnamed_error(packed: Path, tmp_path: Path, data: st.DataObject) -> None:
    shards = tmp_path / "fuzzed"
    if not shards.exists():
        shutil.copytree(packed, shards)
    value = json.loads((packed / "index.json").read_text())
    places = [value, value["files"][0], value["budget"], *value["videos"], value["videos"][0]["objects"]]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places))
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(_JSON)
    (shards / "index.json").write_text(json.dumps(value))
    try:
        index = ShardIndex.load(shards)
        verify(shards)
        reader = ShardReader(shards)
        for video in index.videos:
            reader.read(video.name, range(video.num_frames))
    except DataError:
        pass


def test_no_shard_ends_in_an_unnamed_error(shards: Path) -> None:
    """Some bytes of the footer changed, where types, sizes and places stand."""
    file = shards / "frames-00000.parquet"
    whole = file.read_bytes()
    draws = np.random.default_rng(0)
    names = [video.name for video in ShardIndex.load(shards).videos]
    for _ in range(150):
        content = bytearray(whole)
        for at in draws.integers(len(whole) - 3000, len(whole), draws.integers(1, 4)):
            content[at] = draws.integers(256)
        file.write_bytes(content)
        with contextlib.suppress(DataError):
            ShardReader(shards).read(names[0], [0, 3])
        verify(shards)
