"""Frames read from where a shard file says that they lie, and files that say nothing or the wrong thing."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from davis_folder import make_davis

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.places import PLACES_KEY
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.data.shards.reader import FrameRow, ShardReader
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack

FRAMES = [4, 0, 5, 2, 2]


def _packed(folder: Path, **options: int) -> Path:
    pack(open_dataset(make_davis(folder / "davis")), folder / "shards", labels="all", **options)
    return folder / "shards"


def _rewrite(shards: Path, change: Callable[[bytes], bytes | None], rows_per_group: int | None = None) -> None:
    """Writes the rows again, as an earlier version or another program does, with the footer's places changed."""
    file = shards / "frames-00000.parquet"
    table, text = pq.read_table(file), change(pq.read_metadata(file).metadata[PLACES_KEY])
    with pq.ParquetWriter(file, table.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(table, rows_per_group or ShardIndex.load(shards).rows_per_group)
        if text is not None:
            writer.add_key_value_metadata({PLACES_KEY: text})


def _read(shards: Path) -> dict[str, list[FrameRow]]:
    reader = ShardReader(shards)
    return {video.name: reader.read(video.name, FRAMES) for video in reader.index.videos}


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are read."""
    read: list[int] = []
    original = pq.ParquetFile.read_row_groups

    def noted(self: pq.ParquetFile, wanted: list[int], **options: object) -> pa.Table:
        read.extend(wanted)
        return original(self, wanted, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    return read


@pytest.mark.parametrize("rows_per_group", [1, 4, 100])
def test_no_byte_is_read_but_those_of_the_frames_and_their_labels(
    tmp_path: Path, groups: list[int], monkeypatch: pytest.MonkeyPatch, rows_per_group: int
) -> None:
    shards = _packed(tmp_path, rows_per_group=rows_per_group)
    found = _read(shards)
    content = (shards / "frames-00000.parquet").read_bytes()
    asked: list[bytes] = []
    original = RangedFile._range

    def noted(self: RangedFile, start: int, size: int) -> bytes:
        asked.append(content[start : start + size])
        return original(self, start, size)

    monkeypatch.setattr(RangedFile, "_range", noted)
    (row,) = ShardReader(shards).read("v1", [3])
    assert sorted(asked) == sorted([row.jpeg, row.label or b""])
    assert groups == []
    rows = {(row["video"], row["frame"]): row for row in pq.read_table(shards / "frames-00000.parquet").to_pylist()}
    for video, own in found.items():
        stored = [rows[video, frame] for frame in FRAMES]
        assert own == [FrameRow(row["frame"], row["name"], row["jpeg"], row["label"]) for row in stored]


def test_shards_of_earlier_versions_are_read_by_the_row_groups_of_a_clip(tmp_path: Path, groups: list[int]) -> None:
    shards = _packed(tmp_path, rows_per_group=2)
    expected = _read(shards)
    _rewrite(shards, lambda text: None)
    assert verify(shards) == []
    assert _read(shards) == expected
    groups.clear()
    ShardReader(shards).read("v1", [1, 2])
    assert groups == [3, 4]


def _longer(text: bytes) -> bytes:
    return base64.b64encode(base64.b64decode(text) * 2)


def _huge(text: bytes) -> bytes:
    return base64.b64encode(b"\xff" * len(base64.b64decode(text)))


def _shifted(text: bytes) -> bytes:
    rows = bytearray(base64.b64decode(text))
    rows[0], rows[16] = rows[0] + 1, rows[16] - 1
    return base64.b64encode(rows)


def _other_checksums(text: bytes) -> bytes:
    rows = bytearray(base64.b64decode(text))
    for at in range(8, len(rows), 16):
        rows[at] ^= 1
    return base64.b64encode(rows)


@pytest.mark.parametrize(
    "change", [_longer, _huge, _shifted, _other_checksums, lambda _: b"\xff nonsense", lambda _: b""]
)
def test_where_the_footer_is_wrong_row_groups_have_the_last_word_and_verify_says_so(
    tmp_path: Path, groups: list[int], change: Callable[[bytes], bytes]
) -> None:
    shards = _packed(tmp_path)
    expected = _read(shards)
    assert groups == []
    _rewrite(shards, change)
    assert _read(shards) == expected
    assert groups
    assert any("footer" in problem.what for problem in verify(shards))


def test_rows_in_other_groups_still_lie_where_the_footer_says(tmp_path: Path, groups: list[int]) -> None:
    """It holds sizes, not places: what has copied the file need know nothing of them."""
    shards = _packed(tmp_path)
    expected = _read(shards)
    _rewrite(shards, lambda text: text, rows_per_group=3)
    assert _read(shards) == expected
    assert groups == []


def test_a_damaged_frame_is_named_by_either_way(tmp_path: Path) -> None:
    shards = _packed(tmp_path)
    file = shards / "frames-00000.parquet"
    content = bytearray(file.read_bytes())
    content[content.index(_read(shards)["v1"][0].jpeg) + 50] ^= 1
    file.write_bytes(content)
    reader = ShardReader(shards)
    with pytest.raises(DataError, match="frame 4 of video 'v1' is damaged"):
        reader.read("v1", [0, 4])
    assert [row.frame for row in reader.read("v1", [0, 5])] == [0, 5]
