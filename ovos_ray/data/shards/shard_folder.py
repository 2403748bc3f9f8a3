"""Shards as a dataset folder: a split that lies in a bucket is predicted and scored as one on a disk would be.

A video's frames and labels are fetched when it is opened, checked, and kept on this machine for all runs to come:

    CACHE/shards/KEY/JPEGImages/VIDEO/FRAME.jpg
    CACHE/shards/KEY/Annotations/VIDEO/FRAME.png

The key is a hash of where the shards lie and of what their index says: a stranger's index names no folder, and cannot
pass its frames off as those of other shards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.description import DatasetDescription
from ovos_ray.data.folders.video import Video
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.video_entry import INDEX_NAME, VideoEntry
from ovos_ray.io import exclusive, whole_folder
from ovos_ray.paths import below, cache_folder
from ovos_ray.storage import location_of

__all__ = ["ShardFolder", "are_shards"]

_KIND = "videos of shards"
_AT_A_TIME = 64


def are_shards(location: str | Path) -> bool:
    """Whether a location can only be shards: in a bucket, or a folder with their index."""
    return "://" in str(location) or os.path.isfile(Path(location, INDEX_NAME))  # False also of what can be no path


class ShardFolder(DatasetFolder):
    """The split that was packed.

    Args:
        location: A folder or bucket URI written by `pack`.
        layout: How the dataset is scored; None: as the folder was that was packed.

    Raises:
        DataError: There is no usable index.
        StorageError: The bucket cannot be reached.
    """

    layout = "shards"
    expected = "a folder or bucket written by `ovos-ray pack`"

    def __init__(self, location: str | Path, layout: str | None = None) -> None:
        self.location = str(location)
        self._reader = ShardReader(location)
        index = self.index
        known = DatasetDescription(
            name=index.dataset, layout=layout or index.layout, frame_interval=index.frame_interval
        )
        place = location_of(location)
        key = repr((place if "://" in place else os.path.abspath(place), index.digest, index.source_digest))
        super().__init__(cache_folder() / "shards" / hashlib.sha256(key.encode()).hexdigest()[:16], known)

    def __reduce__(self) -> tuple[type[ShardFolder], tuple[Any, ...]]:
        return type(self), (self.location, self.description.layout)

    @property
    def index(self) -> ShardIndex:
        """Of the shards."""
        return self._reader.index

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether there are shards in this folder."""
        return are_shards(folder)

    @property
    def splits(self) -> tuple[str, ...]:
        """The split that was packed."""
        return (self.index.split,)

    @property
    def place(self) -> str:
        """Where the shards lie, for messages."""
        return self.location

    @property
    def home(self) -> str:
        """The folder that was packed, or the dataset's name where that is not known."""
        return self.index.root or self.index.dataset

    def outline(self, split: str, name: str) -> tuple[int, Iterable[int]]:
        """See `DatasetFolder.outline`; nothing is fetched."""
        entry = self.index.video(name)
        return entry.num_frames, entry.label_frames

    def _list(self, split: str) -> list[str]:
        return [outline.name for outline in self.index.outlines()]

    def _open(self, split: str, name: str) -> Video:
        entry = self.index.video(name)
        frames, labels = below(self.root, "JPEGImages", name), below(self.root, "Annotations", name)
        with exclusive(below(self.root, "locks", f"{name}.lock")):
            if not frames.is_dir():
                self._fetch(entry, frames, labels)
        return Video(
            name,
            tuple(frames / f"{frame}.jpg" for frame in entry.frame_names),
            None,
            {index: labels / f"{entry.frame_names[index]}.png" for index in entry.label_frames},
            given="appearances" if self.index.layout == "youtube-vos" else "first",
        )

    def _fetch(self, entry: VideoEntry, frames: Path, labels: Path) -> None:
        """Writes a video's files; the frames appear last, so that where they are, all is."""
        with whole_folder(frames, _KIND) as new_frames, whole_folder(labels, _KIND) as new_labels:
            for start in range(0, entry.num_frames, _AT_A_TIME):
                block = range(start, min(start + _AT_A_TIME, entry.num_frames))
                for row in self._reader.read(entry.name, block):
                    name = entry.frame_names[row.frame]  # of the index, whose names are checked; a row's are not
                    (new_frames / f"{name}.jpg").write_bytes(row.jpeg)
                    if row.label is not None:
                        (new_labels / f"{name}.png").write_bytes(row.label)
