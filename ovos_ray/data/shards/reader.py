"""One row per frame: the columns of a shard, and a reader that touches only the row groups a clip needs."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.node_cache import cached_path, is_cached
from ovos_ray.errors import DataError, StorageError
from ovos_ray.storage import RemoteFile, filesystem_of, persistently

__all__ = ["SCHEMA", "FrameRow", "ShardReader", "open_shard", "require_plain", "row_checksum"]

SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
        pa.field("label", pa.binary()),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("checksum", pa.string(), nullable=False),
    ]
)
_PLAIN = frozenset({"PLAIN", "RLE"})  # RLE: which labels are there
_log = logging.getLogger(__name__)
_MOST_OPEN = 64  # files of one folder, per process
_FOOTER_BYTES = 1 << 16
_READ = ["video", "frame", "name", "jpeg", "label", "checksum"]


def row_checksum(video: str, frame: int, name: str, jpeg: bytes, label: bytes | None) -> str:
    """Returns 16 hex digits that tie a frame's bytes and its label's to their place."""
    state = hashlib.blake2b(f"{video}\n{frame}\n{name}\n{len(jpeg)}\n".encode(), digest_size=8)
    state.update(jpeg)
    state.update(b"no label" if label is None else label)
    return state.hexdigest()


@dataclass(frozen=True)
class FrameRow:
    """A stored frame: its index in the video, its name, its JPEG bytes, and its label as PNG bytes if it has one."""

    frame: int
    name: str
    jpeg: bytes
    label: bytes | None


def open_shard(folder: str | Path, name: str) -> pq.ParquetFile:
    """Opens one file of a shard folder; local files are memory-mapped.

    Raises:
        DataError: The file is missing, or its footer cannot be read.
        StorageError: The bucket cannot be reached.
    """
    return _open(folder, name)[0]


def _open(folder: str | Path, name: str, kept_at: Path | None = None) -> tuple[pq.ParquetFile, RemoteFile | None]:
    """Opens a file; of a bucket, with what reads from there, unless it is kept on this disk."""
    filesystem, root = filesystem_of(folder)
    path = str(PurePosixPath(root) / name)
    location = f"{str(folder).rstrip('/')}/{name}"
    try:
        if filesystem.type_name == "local":
            return persistently(path, lambda: _of_frames(pq.ParquetFile(path, memory_map=True))), None
        if kept_at is not None and is_cached(kept_at, lambda: RemoteFile(filesystem, path, location)):
            return _of_frames(pq.ParquetFile(kept_at, memory_map=True)), None
        remote = RemoteFile(filesystem, path, location)
        remote.keep_end(_FOOTER_BYTES)
        return _of_frames(pq.ParquetFile(pa.PythonFile(remote, mode="r"))), remote
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: shard file is missing", "pack the dataset again, or copy the whole folder") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: unreadable shard file ({error})", "pack the dataset again with --overwrite"
        ) from error


def _of_frames(parquet: pq.ParquetFile) -> pq.ParquetFile:
    """Makes sure that a file has the columns of `SCHEMA`: others may hold a billion absent values in a few bytes."""
    if not parquet.schema_arrow.equals(SCHEMA):
        raise pa.ArrowInvalid(f"columns {parquet.schema_arrow.names} or their types, expected {SCHEMA.names}")
    return parquet


def require_plain(parquet: pq.ParquetFile, group: int, file: str) -> None:
    """Makes sure that a row group is no larger in memory than in its file: stored plainly, as all that `pack` writes.

    Raises:
        DataError: It is compressed, or says once what it repeats.
    """
    rows = parquet.metadata.row_group(group)
    for position in range(rows.num_columns):
        column = rows.column(position)
        if column.compression != "UNCOMPRESSED" or not _PLAIN.issuperset(column.encodings):
            raise DataError(
                f"{file}: row group {group} is stored as {column.compression} {', '.join(column.encodings)}, which may "
                "take any memory; `pack` writes plain rows",
                _REMEDY,
            )


def _extent(parquet: pq.ParquetFile, group: int) -> tuple[int, int]:
    """Returns where in its file a row group begins and ends."""
    rows = parquet.metadata.row_group(group)
    columns = [rows.column(position) for position in range(rows.num_columns)]
    starts = [
        column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
        for column in columns
    ]
    return min(starts), max(s + column.total_compressed_size for s, column in zip(starts, columns, strict=True))


class ShardReader:
    """Reads frames of one shard folder. Keeps some files open; can be pickled (they are opened anew).

    Args:
        folder: A folder or bucket URI written by `pack`.
        cache: Where files of a bucket are kept on this machine's disk; None: nowhere.

    Raises:
        DataError: There is no usable index.
    """

    def __init__(self, folder: str | Path, cache: str | None = None) -> None:
        self.folder = str(folder)
        self.cache = cache if "://" in self.folder else None
        self.index = ShardIndex.load(folder)
        self._uncached: set[int] = set()
        self._files: OrderedDict[int, tuple[pq.ParquetFile, RemoteFile | None]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}

    def _file(self, shard: int) -> tuple[pq.ParquetFile, RemoteFile | None]:
        """Opens a file, or takes it from the few that were used last: each holds a footer and a descriptor."""
        if shard not in self._files:
            cached = self.cache is not None and shard not in self._uncached
            kept_at = cached_path(str(self.cache), self.folder, self.index, shard) if cached else None
            self._files[shard] = _open(self.folder, self.index.files[shard].name, kept_at)
            if len(self._files) > _MOST_OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(shard)
        return self._files[shard]

    def read(self, video: str, frames: Sequence[int]) -> list[FrameRow]:
        """Returns the rows of `frames` (indices in the video), in the order asked for.

        Raises:
            DataError: There is no such video or frame, a file is missing or damaged, or a checksum does not match.
            StorageError: The bucket cannot be reached, which says nothing of its data.
        """
        try:
            return self._read(video, frames)
        except DataError as error:
            shard = self.index.video(video).shard
            if self.cache is None or shard in self._uncached:
                raise
            # The copy on this disk may be what is damaged; the bucket has the last word.
            self._uncached.add(shard)
            self._files.pop(shard, None)
            rows = self._read(video, frames)
            kept_at = cached_path(self.cache, self.folder, self.index, shard)
            _log.warning("%s: damaged, and removed (%s)", kept_at, error.message)
            kept_at.unlink(missing_ok=True)
            return rows

    def _read(self, video: str, frames: Sequence[int]) -> list[FrameRow]:
        entry = self.index.video(video)
        outside = [frame for frame in frames if not 0 <= frame < entry.num_frames]
        if outside:
            raise DataError(f"video {video!r} has frames 0 … {entry.num_frames - 1}, not {outside}")
        size = self.index.rows_per_group
        rows = [entry.first_row + frame for frame in frames]
        groups = sorted({row // size for row in rows})
        name = self.index.files[entry.shard].name
        parquet, remote = self._file(entry.shard)
        try:
            for group in groups:
                require_plain(parquet, group, f"{self.folder}/{name}")
            if remote is not None:  # Arrow makes one request for each run of groups; one for all is faster
                remote.keep(_extent(parquet, group) for group in groups)
            table = parquet.read_row_groups(groups, columns=_READ, use_threads=False)
            start = {group: position * size for position, group in enumerate(groups)}
            found = [table.slice(start[row // size] + row % size, 1).to_pylist()[0] for row in rows]
        except StorageError:
            raise
        except (OSError, IndexError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.folder}/{name}: cannot read video {video!r} ({error})", _REMEDY) from error
        return [self._checked(row, video, frame, name) for row, frame in zip(found, frames, strict=True)]

    def _checked(self, row: dict[str, Any], video: str, frame: int, file: str) -> FrameRow:
        if (row["video"], row["frame"]) != (video, frame):
            raise DataError(
                f"{self.folder}/{file}: found frame {row['frame']} of {row['video']!r} where the index has frame "
                f"{frame} of {video!r}",
                _REMEDY,
            )
        if row["checksum"] != row_checksum(video, frame, row["name"], row["jpeg"], row["label"]):
            raise DataError(
                f"{self.folder}/{file}: frame {frame} of video {video!r} is damaged (its checksum differs)", _REMEDY
            )
        return FrameRow(frame, row["name"], row["jpeg"], row["label"])


_REMEDY = "see what else is wrong: ovos-ray verify SHARDS; then pack the dataset again"
