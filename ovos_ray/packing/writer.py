"""Shards being written: rows in Parquet files, and what the index needs to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import ObjectBox
from ovos_ray.data.shards.reader import SCHEMA
from ovos_ray.data.shards.video_entry import ShardFile, VideoEntry
from ovos_ray.packing.prepare import PackedRow

__all__ = ["ShardWriter"]


class ShardWriter:
    """Writes rows to Parquet files in full row groups, and keeps what the index needs."""

    def __init__(self, folder: Path, dataset: str, rows_per_group: int, shard_bytes: int) -> None:
        self.videos: list[VideoEntry] = []
        self.files: list[ShardFile] = []
        self.checksums: list[str] = []
        self.num_reencoded = 0
        self._folder, self._dataset = folder, dataset
        self._rows_per_group, self._shard_bytes = rows_per_group, shard_bytes
        self._parquet: pq.ParquetWriter | None = None
        self._waiting: list[dict[str, Any]] = []
        self._num_rows = self._num_bytes = 0

    def add(self, video: Video, rows: Iterator[PackedRow], *, one_frame_allowed: bool) -> list[str]:
        """Writes a video; returns what is wrong with it."""
        problems: list[str] = []
        names: list[str] = []
        objects: dict[int, tuple[ObjectBox, ...]] = {}
        size: tuple[int, int] | None = None
        first_row = self._num_rows
        for row in rows:
            if row.problem is not None:
                problems.append(row.problem)
                continue
            size = size or (row.height, row.width)
            if (row.height, row.width) != size:
                problems.append(
                    f"{video.location}: frame {row.name} of {row.width} x {row.height} pixels after frames of "
                    f"{size[1]} x {size[0]}; all frames of a video must have one size"
                )
            names.append(row.name)
            if row.label is not None:
                objects[row.frame] = row.objects
            self._write(video.name, row)
        if not problems and len(names) == 1 and not one_frame_allowed:
            problems.append(f"{video.location}: video {video.name!r} has one frame; a clip needs at least two")
        if not problems and not any(objects.values()):
            problems.append(f"{video.location}: no object is left in the label of video {video.name!r} after scaling")
        if not problems and size is not None:
            entry = VideoEntry(
                video.name, len(names), *size, tuple(names), tuple(objects), objects, len(self.files), first_row
            )
            self.videos.append(entry)
        if self._num_bytes > self._shard_bytes:
            self.close()
        return problems

    def _write(self, video: str, row: PackedRow) -> None:
        self._waiting.append(
            {
                "dataset": self._dataset,
                "video": video,
                "frame": row.frame,
                "name": row.name,
                "jpeg": row.jpeg,
                "label": row.label,
                "height": row.height,
                "width": row.width,
                "checksum": row.checksum,
            }
        )
        self.checksums.append(row.checksum)
        self.num_reencoded += row.reencoded
        self._num_rows += 1
        self._num_bytes += len(row.jpeg) + len(row.label or b"")
        if len(self._waiting) == self._rows_per_group:
            self._flush()

    @property
    def _file_name(self) -> str:
        return f"frames-{len(self.files):05d}.parquet"

    def _flush(self) -> None:
        if self._parquet is None:
            # JPEG and PNG do not compress further; statistics of binary columns would repeat whole images.
            self._parquet = pq.ParquetWriter(
                self._folder / self._file_name, SCHEMA, compression="none", use_dictionary=False, write_statistics=False
            )
        self._parquet.write_table(pa.Table.from_pylist(self._waiting, SCHEMA))
        self._waiting.clear()

    def close(self) -> None:
        """Finishes the current file."""
        if self._waiting:
            self._flush()
        if self._parquet is not None:
            self._parquet.close()
            self.files.append(ShardFile(self._file_name, self._num_rows))
        self._parquet, self._num_rows, self._num_bytes = None, 0, 0
