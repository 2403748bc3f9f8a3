"""The videos of a large index as columns: `videos-….parquet` beside an `index.json` that holds the rest.

Entries are made, and checked, when they are asked for. A million videos take about a hundred bytes each, and the
processes of a node share them.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ovos_ray.data.masks import MAX_PIXELS, ObjectBox
from ovos_ray.data.shards.mapped_table import mapped_table
from ovos_ray.data.shards.video_entry import INDEX_NAME, ShardFile, VideoEntry, VideoOutline, require
from ovos_ray.errors import DataError, StorageError
from ovos_ray.paths import checked_name
from ovos_ray.storage import Storage

__all__ = ["VideoTable"]

_REMEDY = "pack the dataset again with --overwrite"
_LIST = pa.list_(pa.field("element", pa.int32(), nullable=False))
_BOX = 6  # numbers of an `ObjectBox`
_CHUNK = 4096
_MOST_EVEN = 2**20  # names that are not written down: what a stranger's number of frames may cost
_SINGLE = ("num_frames", "height", "width", "shard", "first_row")
_COLUMNS = {
    "name": pa.string(),
    "num_frames": pa.int32(),
    "height": pa.int32(),
    "width": pa.int32(),
    "frame_names": pa.string(),  # separated by slashes; FIRST//STEP where numbers rise evenly
    "label_frames": _LIST,
    "num_objects": _LIST,  # of each label frame
    "boxes": _LIST,  # of all objects of all label frames, six numbers each
    "shard": pa.int32(),
    "first_row": pa.int64(),
}
_SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()])
_LEAST_BYTES = 28  # of a row in the file: its five numbers
_PLAIN = frozenset({"PLAIN", "RLE"})


class VideoTable(Sequence[VideoEntry]):
    """Videos of a shard folder, sorted by name.

    Args:
        table: Of the columns above.
        files: The shard files, in which their rows lie.

    Raises:
        ValueError: The columns do not fit together.
    """

    def __init__(self, table: pa.Table, files: Sequence[ShardFile]) -> None:
        require(table.schema.equals(_SCHEMA), "columns", table.schema.names)
        table.validate(full=True)
        if any(column.num_chunks > 1 for column in table.columns):
            table = table.combine_chunks()
        self._table, self._files = table, files
        self._texts: dict[str, Any] = {}
        self._numbers: dict[str, np.ndarray] = {}
        self._starts: dict[str, np.ndarray] = {}
        for name, kind in _COLUMNS.items():
            column = table[name].chunk(0) if table[name].num_chunks else pa.array([], kind)
            if kind == pa.string():
                self._texts[name] = column
                continue
            if kind == _LIST:
                self._starts[name], column = _numpy(column.offsets), column.values
            self._numbers[name] = _numpy(column)

    @classmethod
    def of(cls, videos: Iterable[VideoEntry], files: Sequence[ShardFile]) -> VideoTable:
        """Makes the columns of entries."""
        if isinstance(videos, cls):
            return cls(videos._table, files)
        rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for video in videos:
            own = [video.objects[frame] for frame in video.label_frames]
            changed = {
                "frame_names": _joined(video.frame_names),
                "num_objects": [len(found) for found in own],
                "boxes": [number for found in own for box in found for number in vars(box).values()],
            }
            for name, values in rows.items():
                values.append(changed[name] if name in changed else getattr(video, name))
        return cls(pa.table(rows, _SCHEMA), files)

    @classmethod
    def concat(cls, tables: Iterable[VideoTable], files: Sequence[ShardFile]) -> VideoTable:
        """Joins tables, whose names rise from each to the next."""
        return cls(pa.concat_tables([table._table for table in tables]), files)

    def count_frames(self) -> tuple[int, int]:
        """Returns the numbers of labelled frames and of all frames."""
        return len(self._numbers["label_frames"]), int(self._numbers["num_frames"].sum())

    def save(self, storage: Storage, name: str) -> str:
        """Writes the table, plain values that take the memory that they say, and returns its digest."""
        sink = pa.BufferOutputStream()
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(self._table, sink, row_group_size=2**20, **options)
        content = memoryview(sink.getvalue())
        storage.write(content, name)
        return _digest(content)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        files: Sequence[ShardFile],
        num_videos: int,
        name: str,
        digest: str | None = None,
        *,
        shared: bool = False,
    ) -> VideoTable:
        """Reads a table.

        Args:
            folder: The shard folder or bucket URI.
            files: The shard files.
            num_videos: How many there are.
            name: Of the file.
            digest: Of the file; None where an earlier version packed it.
            shared: Whether it may be the copy that the processes of this node share; needs the digest.

        Raises:
            DataError: It is missing, damaged or another one, or may take more memory than its file.
            StorageError: The bucket cannot be reached.
        """
        require(digest is None or re.fullmatch("[0-9a-f]{32}", str(digest)) is not None, "digest", digest)
        storage = Storage(str(folder))
        path = storage.location(checked_name(name, "table of videos", INDEX_NAME))
        try:
            table = (
                mapped_table(digest, lambda: _read(storage, name, digest))
                if shared and digest
                else _read(storage, name, digest)
            )
            require(table.num_rows == num_videos, "videos", table.num_rows)
            pa.default_memory_pool().release_unused()  # what decoding took, as much again as the table
            return cls(table, files)
        except StorageError:
            raise
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: the table of videos is missing", f"copy the whole folder, or {_REMEDY}"
            ) from error
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            raise DataError(f"{path}: damaged index ({error})", _REMEDY) from error

    def check(self) -> None:
        """Checks what all entries have in common; each is checked for itself when it is asked for.

        Raises:
            ValueError: A number is out of range, or the names are not in order.
        """
        if not len(self):
            return
        frames, height, width, shard, row = (self._numbers[name].astype(np.int64) for name in _SINGLE)
        require(bool(((shard >= 0) & (shard < len(self._files))).all()), "shard", "beyond the files")
        last = np.array([file.num_rows for file in self._files])[shard] - frames
        require(bool(((frames >= 1) & (row >= 0) & (row <= last)).all()), "first_row", "rows beyond the files")
        require(bool(((height >= 1) & (width >= 1) & (width <= MAX_PIXELS // np.maximum(height, 1))).all()), "size", "")
        names = self._texts["name"]
        rising = pa.compute.less(names[:-1], names[1:])
        require(pa.compute.all(rising, min_count=0).as_py(), "names", "not rising, or two of one name")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, place: int) -> VideoEntry: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[VideoEntry, ...]: ...
    def __getitem__(self, place: int | slice) -> VideoEntry | tuple[VideoEntry, ...]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._entry(place % len(self))

    def _entry(self, place: int) -> VideoEntry:
        name = self._texts["name"][place].as_py()
        numbers = {key: int(self._numbers[key][place]) for key in _SINGLE}
        try:
            labels, counts, flat = (self._list(key, place) for key in ("label_frames", "num_objects", "boxes"))
            boxes = [ObjectBox(*flat[at : at + _BOX]) for at in range(0, len(flat), _BOX)]
            require(len(counts) == len(labels) and min(counts, default=0) >= 0, f"num_objects of {name!r}", counts)
            require(sum(counts) == len(boxes), f"boxes of {name!r}", len(boxes))
            ends = np.cumsum(counts).tolist()
            objects = {f: tuple(boxes[end - n : end]) for f, n, end in zip(labels, counts, ends, strict=True)}
            names = _split(self._texts["frame_names"][place].as_py(), numbers["num_frames"])
            entry = VideoEntry(name=name, frame_names=names, label_frames=tuple(labels), objects=objects, **numbers)
            entry.check(self._files)
        except (ValueError, TypeError) as error:
            raise DataError(f"table of videos: damaged index ({error})", _REMEDY) from error
        return entry

    def _list(self, key: str, place: int) -> list[int]:
        starts = self._starts[key]
        found: list[int] = self._numbers[key][starts[place] : starts[place + 1]].tolist()
        return found

    def __iter__(self) -> Iterator[VideoEntry]:
        return (self._entry(place) for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def find(self, name: str) -> VideoEntry | None:
        """Returns the video of this name, None if there is none."""
        names = self._texts["name"]
        place = bisect.bisect_left(range(len(self)), name, key=lambda place: names[place].as_py())
        return self[place] if place < len(self) and names[place].as_py() == name else None

    def outlines(self) -> Iterator[VideoOutline]:
        """Yields what planning needs of each video, without making its entry."""
        for first in range(0, len(self), _CHUNK):
            places = range(first, min(first + _CHUNK, len(self)))
            names = self._texts["name"][first : places.stop].to_pylist()
            lengths = self._numbers["num_frames"][first : places.stop].tolist()
            for name, frames, place in zip(names, lengths, places, strict=True):
                labels, counts = self._list("label_frames", place), self._list("num_objects", place)
                shown = tuple(frame for frame, count in zip(labels, counts, strict=False) if count)
                yield VideoOutline(name, frames, tuple(labels), shown)


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _read(storage: Storage, name: str, digest: str | None) -> pa.Table:
    """The table of a file, which is checked before anything is made of it.

    What may be absent may be said to be absent a billion times in a few bytes.
    """
    content = storage.read(name)
    require(digest is None or _digest(content) == digest, "file", "not the one that the index was written with")
    parquet = pq.ParquetFile(pa.BufferReader(content))
    require(parquet.schema_arrow.equals(_SCHEMA), "columns", parquet.schema_arrow.names)
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    plain = all(c.compression == "UNCOMPRESSED" and _PLAIN.issuperset(c.encodings) for c in columns)
    require(plain, "columns that may take any memory", [c.compression for c in columns])
    rows = parquet.metadata.num_rows
    require(rows * _LEAST_BYTES <= len(content), "videos", rows)
    return parquet.read(use_threads=False).replace_schema_metadata(None)


def _numpy(column: pa.Array) -> np.ndarray:
    """The column's own memory; `to_numpy` would load pandas, a fifth of a second and 25 MiB a process."""
    kind = np.dtype(f"i{column.type.bit_width // 8}")
    return np.frombuffer(column.buffers()[1] or b"", kind)[column.offset : column.offset + len(column)]


def _joined(names: Sequence[str]) -> str:
    """Names as one text: no name holds a slash, and most are numbers that rise evenly."""
    if 2 < len(names) <= _MOST_EVEN and names[0].isdecimal() and names[1].isdecimal() and names[0].isascii():
        text = f"{names[0]}//{int(names[1]) - int(names[0])}"
        if _split(text, len(names)) == tuple(names):
            return text
    return "/".join(names)


def _split(text: str, count: int) -> tuple[str, ...]:
    even = re.fullmatch(r"([0-9]{1,30})//(-?[0-9]{1,30})", text)
    if even is None:
        return tuple(text.split("/"))
    require(count <= _MOST_EVEN, "num_frames", count)
    first, step, width = int(even[1]), int(even[2]), len(even[1])
    return tuple(f"{first + number * step:0{width}d}" for number in range(count))
