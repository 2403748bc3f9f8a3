"""One shard file: its columns, one row a frame, and how it is opened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ovos_ray.data.shards.node_cache import is_cached
from ovos_ray.data.shards.places import Places
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.errors import DataError, StorageError
from ovos_ray.storage import filesystem_of, persistently

__all__ = ["REMEDY", "SCHEMA", "OpenShard", "extent", "open_shard", "require_plain", "row_checksum"]

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
_FOOTER_BYTES = 320 << 10  # that of a file of 256 MiB of 480p frames has 250 kB
REMEDY = "see what else is wrong: ovos-ray verify SHARDS; then pack the dataset again"


def row_checksum(video: str, frame: int, name: str, jpeg: bytes, label: bytes | None) -> str:
    """Returns 16 hex digits that tie a frame's bytes and its label's to their place."""
    state = hashlib.blake2b(f"{video}\n{frame}\n{name}\n{len(jpeg)}\n".encode(), digest_size=8)
    state.update(jpeg)
    state.update(b"no label" if label is None else label)
    return state.hexdigest()


@dataclass
class OpenShard:
    """A shard file that is open.

    Attributes:
        file: Its bytes.
        in_bucket: Whether these are far away.
        parquet: Its rows; None where only places are kept.
        places: Where its frames lie; None in files of earlier versions.
    """

    file: RangedFile
    in_bucket: bool
    parquet: pq.ParquetFile | None
    places: Places | None


def open_shard(folder: str | Path, name: str, kept_at: Path | None = None) -> OpenShard:
    """Opens one file of a shard folder; local files are memory-mapped.

    Args:
        folder: A folder or bucket URI.
        name: Of the file.
        kept_at: Where a bucket's file is kept on this disk, if there is room.

    Raises:
        DataError: The file is missing, or its footer cannot be read.
        StorageError: The bucket cannot be reached.
    """
    filesystem, root = filesystem_of(folder)
    path = str(PurePosixPath(root) / name)
    location = f"{str(folder).rstrip('/')}/{name}"
    try:
        if filesystem.type_name == "local":
            return persistently(path, lambda: _on_disk(path))
        if kept_at is not None and is_cached(kept_at, lambda: RangedFile(filesystem, path, location)):
            return _on_disk(str(kept_at))
        remote = RangedFile(filesystem, path, location)
        remote.keep_end(_FOOTER_BYTES)
        opened = _opened(remote, pq.ParquetFile(pa.PythonFile(remote, mode="r")), in_bucket=True)
        remote.keep(())
        return opened
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: shard file is missing", "pack the dataset again, or copy the whole folder") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: unreadable shard file ({error})", "pack the dataset again with --overwrite"
        ) from error


def _on_disk(path: str) -> OpenShard:
    return _opened(RangedFile(fs.LocalFileSystem(), path, path), pq.ParquetFile(path, memory_map=True), in_bucket=False)


def _opened(file: RangedFile, parquet: pq.ParquetFile, *, in_bucket: bool) -> OpenShard:
    return OpenShard(file, in_bucket, _of_frames(parquet), Places.of(parquet.metadata, file.size))


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
                REMEDY,
            )


def extent(parquet: pq.ParquetFile, group: int) -> tuple[int, int]:
    """Returns where in its file a row group begins and ends."""
    rows = parquet.metadata.row_group(group)
    columns = [rows.column(position) for position in range(rows.num_columns)]
    starts = [
        column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
        for column in columns
    ]
    return min(starts), max(s + column.total_compressed_size for s, column in zip(starts, columns, strict=True))
