"""A reader of shards that touches only what a clip needs."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.node_cache import cached_path
from ovos_ray.data.shards.shard_file import REMEDY, OpenShard, extent, open_shard, require_plain, row_checksum
from ovos_ray.data.shards.video_entry import VideoEntry
from ovos_ray.errors import DataError, StorageError

__all__ = ["FrameRow", "ShardReader"]

_log = logging.getLogger(__name__)
_MOST_OPEN = 64  # files of one folder, per process
_READ = ["video", "frame", "name", "jpeg", "label", "checksum"]


@dataclass(frozen=True)
class FrameRow:
    """A stored frame: its index in the video, its name, its JPEG bytes, and its label as PNG bytes if it has one."""

    frame: int
    name: str
    jpeg: bytes
    label: bytes | None


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
        self.index = ShardIndex.shared(folder)
        self._uncached: set[int] = set()
        self._files: OrderedDict[int, OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}

    def _file(self, shard: int, *, by_places: bool = True) -> OpenShard:
        """Opens a file, or takes it from the few that were used last: each has a descriptor, and memory of its own."""
        opened = self._files.get(shard)
        if opened is None or (opened.parquet is None and not by_places):
            cached = self.cache is not None and shard not in self._uncached
            kept_at = cached_path(str(self.cache), self.folder, self.index, shard) if cached else None
            opened = open_shard(self.folder, self.index.files[shard].name, kept_at)
            if not by_places:
                opened.places = None
            elif opened.places is not None:
                opened.parquet = None  # a footer takes 3 MiB in memory, places a fiftieth of that
            self._files[shard] = opened
            if len(self._files) > _MOST_OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(shard)
        return opened

    def read(self, video: str, frames: Sequence[int]) -> list[FrameRow]:
        """Returns the rows of `frames` (indices in the video), in the order asked for.

        Raises:
            DataError: There is no such video or frame, a file is missing or damaged, or a checksum does not match.
            StorageError: The bucket cannot be reached, which says nothing of its data.
        """
        try:
            return self._read(video, frames)
        except StorageError:
            self._files.pop(self.index.video(video).shard, None)  # opened anew by whoever asks again
            raise
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
        if (found := self._by_places(entry, frames)) is not None:
            return found
        return self._by_groups(entry, frames)

    def _by_places(self, entry: VideoEntry, frames: Sequence[int]) -> list[FrameRow] | None:
        """Reads frames where the file says that they lie; None where it does not say so, or is wrong."""
        opened = self._file(entry.shard)
        places, file = opened.places, opened.file
        if places is None or entry.first_row + max(frames, default=0) >= len(places):
            return None
        spans = [places.spans(entry.first_row + frame) for frame in frames]
        found = []
        try:
            if opened.in_bucket:  # which takes long for a request, and little longer for more bytes
                file.keep(sorted(span for both in spans for span in both if span is not None))
            for frame, (jpeg_at, label_at) in zip(frames, spans, strict=True):
                jpeg, label = file.part(*jpeg_at), None if label_at is None else file.part(*label_at)
                row = FrameRow(frame, entry.frame_names[frame], jpeg, label)
                checksum = row_checksum(entry.name, frame, row.name, jpeg, label)
                if checksum != places.checksum(entry.first_row + frame):
                    return None
                found.append(row)
        except StorageError:
            raise
        except OSError:
            return None
        finally:
            if opened.in_bucket:
                file.keep(())
        return found

    def _by_groups(self, entry: VideoEntry, frames: Sequence[int]) -> list[FrameRow]:
        """Reads frames with the row groups that they are in."""
        size, video = self.index.rows_per_group, entry.name
        rows = [entry.first_row + frame for frame in frames]
        groups = sorted({row // size for row in rows})
        name = self.index.files[entry.shard].name
        opened = self._file(entry.shard, by_places=False)
        assert opened.parquet is not None
        try:
            for group in groups:
                require_plain(opened.parquet, group, f"{self.folder}/{name}")
            if opened.in_bucket:  # Arrow makes one request for each run of groups; one for all is faster
                opened.file.keep(extent(opened.parquet, group) for group in groups)
            table = opened.parquet.read_row_groups(groups, columns=_READ, use_threads=False)
            start = {group: position * size for position, group in enumerate(groups)}
            found = [table.slice(start[row // size] + row % size, 1).to_pylist()[0] for row in rows]
        except StorageError:
            raise
        except (OSError, IndexError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.folder}/{name}: cannot read video {video!r} ({error})", REMEDY) from error
        return [self._checked(row, video, frame, name) for row, frame in zip(found, frames, strict=True)]

    def _checked(self, row: dict[str, Any], video: str, frame: int, file: str) -> FrameRow:
        if (row["video"], row["frame"]) != (video, frame):
            raise DataError(
                f"{self.folder}/{file}: found frame {row['frame']} of {row['video']!r} where the index has frame "
                f"{frame} of {video!r}",
                REMEDY,
            )
        if row["checksum"] != row_checksum(video, frame, row["name"], row["jpeg"], row["label"]):
            raise DataError(
                f"{self.folder}/{file}: frame {frame} of video {video!r} is damaged (its checksum differs)", REMEDY
            )
        return FrameRow(frame, row["name"], row["jpeg"], row["label"])
