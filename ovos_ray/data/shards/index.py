"""The index of a shard folder: which frames there are, which are labelled, what the labels show, and where rows lie.

Plans are made from the index alone; no shard is opened for that.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from ovos_ray.data.masks import ObjectBox
from ovos_ray.errors import DataError

__all__ = ["INDEX_NAME", "LabelBudget", "ShardFile", "ShardIndex", "VideoEntry", "filesystem_of"]

INDEX_NAME = "index.json"
_VERSION = 1


def filesystem_of(location: str | Path) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a folder or bucket URI (`s3://…`, `gs://…`, `file://…`) and the path in it."""
    text = str(location)
    if "://" in text:
        filesystem, path = fs.FileSystem.from_uri(text)
        return filesystem, path
    return fs.LocalFileSystem(), str(Path(text).absolute())


@dataclass(frozen=True)
class LabelBudget:
    """How much of a dataset is labelled.

    Attributes:
        labelled_frames: Labels in the shards.
        total_frames: Frames of the packed videos at the dataset's frame interval: what labelling everything would take.
    """

    labelled_frames: int
    total_frames: int

    @property
    def percent(self) -> float:
        """Labelled frames in percent of all (paper: 1.4 for DAVIS, 3.7 for YouTube-VOS)."""
        return 100.0 * self.labelled_frames / self.total_frames if self.total_frames else 0.0

    def as_dict(self) -> dict[str, float]:
        """Returns the numbers, as tracking stores them."""
        return {**dataclasses.asdict(self), "percent": self.percent}

    def __str__(self) -> str:
        return f"{self.labelled_frames} of {self.total_frames} frames labelled ({self.percent:.1f} %)"


@dataclass(frozen=True)
class VideoEntry:
    """One video of a shard folder.

    Attributes:
        name: Unique within the folder.
        num_frames: Frames stored.
        height: Of every frame, in pixels.
        width: Of every frame, in pixels.
        frame_names: File names without extension, in temporal order.
        label_frames: Indices of the frames whose label is stored, ascending.
        objects: For each label frame, the objects it shows, by ascending id.
        shard: Position of the file that holds all its rows in `ShardIndex.files`.
        first_row: Row of frame 0 in that file; frame i is i rows further.
    """

    name: str
    num_frames: int
    height: int
    width: int
    frame_names: tuple[str, ...]
    label_frames: tuple[int, ...]
    objects: dict[int, tuple[ObjectBox, ...]]
    shard: int
    first_row: int


@dataclass(frozen=True)
class ShardFile:
    """One Parquet file of a shard folder."""

    name: str
    num_rows: int


@dataclass(frozen=True)
class ShardIndex:
    """Everything about a shard folder but its pixels.

    Attributes:
        dataset: Name of the packed dataset.
        layout: How the source folder was read.
        split: Which part was packed.
        labels: `first` (one label a video) or `all`.
        frame_interval: Video frames between two stored frames (YouTube-VOS: 5).
        shortest_side: Limit frames were scaled down to, None for untouched frames.
        num_reencoded: Frames stored as new JPEGs of quality 95, because they were scaled or were no JPEG files.
        budget: Labels stored against labels possible.
        digest: 16 hex digits of the content: names, order, frames and labels, not file boundaries.
        source_digest: 16 hex digits of names, sizes and times of the packed files and of the options.
        rows_per_group: Rows in every row group but the last of a file.
        files: The Parquet files.
        videos: Sorted by name.
    """

    dataset: str
    layout: str
    split: str
    labels: str
    frame_interval: int
    shortest_side: int | None
    num_reencoded: int
    budget: LabelBudget
    digest: str
    source_digest: str
    rows_per_group: int
    files: tuple[ShardFile, ...]
    videos: tuple[VideoEntry, ...]

    @functools.cached_property
    def _by_name(self) -> dict[str, VideoEntry]:
        return {video.name: video for video in self.videos}

    def video(self, name: str) -> VideoEntry:
        """Returns the entry of a video.

        Raises:
            DataError: There is no such video.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise DataError(f"no video {name!r} among the {len(self.videos)} of {self.dataset} {self.split}") from None

    def save(self, path: Path) -> None:
        """Writes the index as JSON."""
        value = {"version": _VERSION, **dataclasses.asdict(self)}
        for video, entry in zip(value["videos"], self.videos, strict=True):
            video["objects"] = {
                str(frame): [list(dataclasses.astuple(box)) for box in found] for frame, found in entry.objects.items()
            }
        path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> ShardIndex:
        """Reads the index of a shard folder or bucket URI.

        Raises:
            DataError: The folder holds no index, or one that is damaged or of another version.
        """
        filesystem, root = filesystem_of(folder)
        path = str(PurePosixPath(root) / INDEX_NAME)
        try:
            with filesystem.open_input_stream(path) as stream:
                value: dict[str, Any] = json.loads(stream.read())
        except FileNotFoundError as error:
            raise DataError(
                f"{folder}: no shards here ({INDEX_NAME} is missing)",
                f"make them: ovos-ray pack DATASET --root DIR --out {folder}",
            ) from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: unreadable index ({error})", "pack the dataset again with --overwrite") from error
        try:
            version = value.pop("version")
            if version != _VERSION:
                raise DataError(
                    f"{path}: index of version {version}, expected {_VERSION}",
                    "pack the dataset again with --overwrite",
                )
            value["budget"] = LabelBudget(**value["budget"])
            value["files"] = tuple(ShardFile(**file) for file in value["files"])
            value["videos"] = tuple(_video(video) for video in value["videos"])
            return cls(**value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: damaged index ({error!r})", "pack the dataset again with --overwrite") from error


def _video(value: dict[str, Any]) -> VideoEntry:
    value["frame_names"] = tuple(value["frame_names"])
    value["label_frames"] = tuple(value["label_frames"])
    value["objects"] = {
        int(frame): tuple(ObjectBox(*box) for box in found) for frame, found in value["objects"].items()
    }
    return VideoEntry(**value)
