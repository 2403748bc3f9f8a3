"""Checks every row of a shard folder against its checksum, its pixels and the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ovos_ray.data.masks import boxes, decode_mask, jpeg_size
from ovos_ray.data.shards.index import ShardIndex, VideoEntry, content_digest
from ovos_ray.data.shards.places import PLACES_KEY, Places
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.data.shards.shard_file import extent, open_shard, require_plain, row_checksum
from ovos_ray.errors import DataError

__all__ = ["Problem", "verify"]


@dataclass(frozen=True)
class Problem:
    """Something wrong in a shard folder, and where."""

    file: str
    what: str
    row: int | None = None
    video: str | None = None
    frame: int | None = None

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file} row {self.row}"
        frame = f" (video {self.video!r}, frame {self.frame})" if self.video is not None else ""
        return f"{where}{frame}: {self.what}"


def verify(folder: str | Path, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Returns everything that is wrong with a shard folder; an empty list if it is sound.

    Every frame is decoded, every label is decoded and compared with the index, every checksum is computed anew.

    Args:
        folder: A folder or bucket URI written by `pack`.
        progress: Called as (files done, files in all).

    Raises:
        DataError: There is no index that could be compared with.
    """
    index = ShardIndex.load(folder)
    problems: list[Problem] = []
    checksums: list[str] = []
    places: dict[int, list[int]] = {}
    for place, video in enumerate(index.videos):
        places.setdefault(video.shard, []).append(place)
    for position, file in enumerate(index.files):
        videos = [index.videos[place] for place in places.get(position, ())]
        expected = [(video, frame) for video in videos for frame in range(video.num_frames)]
        found: list[str] = []
        problems += _check_file(str(folder), file.name, expected, index, found)
        checksums.append("\n".join(found))
        if progress is not None:
            progress(position + 1, len(index.files))
    num_labels = sum(len(video.label_frames) for video in index.videos)
    num_frames = sum(video.num_frames for video in index.videos)
    if (index.budget.labelled_frames, index.budget.total_frames) != (num_labels, num_frames):
        problems.append(
            Problem("index.json", f"budget says {index.budget}, its videos hold {num_labels} of {num_frames}")
        )
    if not problems and content_digest(checksums) != index.digest:
        problems.append(Problem("index.json", "its digest is not that of the rows"))
    return problems


def _check_file(
    folder: str, name: str, expected: list[tuple[VideoEntry, int]], index: ShardIndex, checksums: list[str]
) -> Iterator[Problem]:
    try:
        opened = open_shard(folder, name)
    except DataError as error:
        yield Problem(name, error.message)
        return
    assert opened.parquet is not None
    parquet, places = opened.parquet, opened.places
    metadata = parquet.metadata
    if places is None and PLACES_KEY in (metadata.metadata or {}):
        yield Problem(name, f"its footer does not say where its frames lie ({PLACES_KEY.decode()})")
    if metadata.num_rows != len(expected):
        yield Problem(name, f"{metadata.num_rows} rows, the index has {len(expected)}")
    row = 0
    for group in range(metadata.num_row_groups):
        num_rows = metadata.row_group(group).num_rows
        if num_rows != index.rows_per_group and group < metadata.num_row_groups - 1:
            yield Problem(name, f"row group {group} has {num_rows} rows, the index has {index.rows_per_group}", row)
        try:
            require_plain(parquet, group, f"{folder}/{name}")
            opened.file.keep([extent(parquet, group)])
            rows = parquet.read_row_group(group).to_pylist()
        except DataError as error:
            yield Problem(name, error.message, row)
            return
        except (OSError, ValueError, pa.ArrowException) as error:
            yield Problem(name, f"row group {group} cannot be read ({error})", row)
            rows = []
        for offset, found in enumerate(rows):
            if row + offset < len(expected):
                video, frame = expected[row + offset]
                checksums.append(found["checksum"])
                for what in _check_row(found, video, frame, index.dataset):
                    yield Problem(name, what, row + offset, video.name, frame)
            if places is not None and not _lies(found, places, row + offset, opened.file):
                yield Problem(name, "does not lie where the file's footer says", row + offset)
        row += num_rows


def _lies(row: dict[str, Any], places: Places, number: int, file: RangedFile) -> bool:
    """Whether a row is where its file says."""
    try:
        found = [None if span is None else file.part(*span) for span in places.spans(number)]
    except OSError:
        return False
    return found == [row["jpeg"], row["label"]] and places.checksum(number) == row["checksum"]


def _check_row(row: dict[str, Any], video: VideoEntry, frame: int, dataset: str) -> Iterator[str]:
    """Yields what is wrong with one row."""
    place = (dataset, video.name, frame, video.frame_names[frame])
    if (row["dataset"], row["video"], row["frame"], row["name"]) != place:
        yield f"holds {row['dataset']} {row['video']!r} frame {row['frame']} ({row['name']}), the index has {place}"
        return
    if row["checksum"] != row_checksum(row["video"], row["frame"], row["name"], row["jpeg"], row["label"]):
        yield "checksum differs: the bytes are not those that were packed"
    try:
        size = jpeg_size(row["jpeg"], "frame")
        if size is None:
            yield "frame is not a JPEG"
        elif not size == (row["height"], row["width"]) == (video.height, video.width):
            yield f"frame of {size}, row says {(row['height'], row['width'])}, index {(video.height, video.width)}"
    except DataError as error:
        yield error.message
    if row["label"] is None:
        if frame in video.label_frames:
            yield "label is missing"
        return
    if frame not in video.label_frames:
        yield "label that the index does not have"
    try:
        mask = decode_mask(row["label"], "label")
        if mask.shape != (video.height, video.width):
            yield f"label of {mask.shape}, frame of {(video.height, video.width)} (height, width)"
        elif frame in video.objects and boxes(mask) != video.objects[frame]:
            ids = [box.object_id for box in boxes(mask)]
            stored = [box.object_id for box in video.objects[frame]]
            yield f"label shows objects {ids}, the index has {stored}, or other boxes"
    except DataError as error:
        yield error.message
