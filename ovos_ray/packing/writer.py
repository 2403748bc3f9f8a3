"""One shard file being written: rows in full row groups, and what the index needs to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import ObjectBox
from ovos_ray.data.shards.places import PLACES_KEY, text_of
from ovos_ray.data.shards.shard_file import SCHEMA
from ovos_ray.data.shards.video_entry import VideoEntry
from ovos_ray.packing.prepare import PackedRow

__all__ = ["ShardWriter"]


class ShardWriter:
    """Writes the rows of some videos to a Parquet file, and keeps what the index needs; a context.

    Args:
        path: The file.
        dataset: Name of the dataset, for the rows.
        number: Place of the file among those of the index.
        rows_per_group: Rows in every row group but the last.
    """

    def __init__(self, path: Path, dataset: str, number: int, rows_per_group: int) -> None:
        self.videos: list[VideoEntry] = []
        self.checksums: list[str] = []
        self.num_reencoded = self.num_rows = 0
        self._dataset, self._number, self._rows_per_group = dataset, number, rows_per_group
        # JPEG and PNG do not compress further; statistics of binary columns would repeat whole images. A column has one
        # page in each row group, as `Places` takes it to be.
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pages = {"write_batch_size": rows_per_group, "data_page_size": 2**30}
        self._parquet = pq.ParquetWriter(path, SCHEMA, **plain, **pages)
        self._places: list[tuple[int, int, str]] = []
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            if self._waiting:
                self._flush()
            self._parquet.add_key_value_metadata({PLACES_KEY: text_of(self._places)})
        self._parquet.close()

    def add(self, video: Video, rows: Iterator[PackedRow], *, one_frame_allowed: bool) -> list[str]:
        """Writes a video; returns what is wrong with it."""
        problems: list[str] = []
        names: list[str] = []
        objects: dict[int, tuple[ObjectBox, ...]] = {}
        size: tuple[int, int] | None = None
        first_row = self.num_rows
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
            labels = tuple(objects)
            entry = VideoEntry(video.name, len(names), *size, tuple(names), labels, objects, self._number, first_row)
            self.videos.append(entry)
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
        self._places.append((len(row.jpeg), len(row.label or b""), row.checksum))
        self.num_reencoded += row.reencoded
        self.num_rows += 1
        if len(self._waiting) == self._rows_per_group:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._waiting, SCHEMA))
        self._waiting.clear()
