"""The index of a shard folder: which frames there are, which are labelled, what the labels show, and where rows lie.

Plans are made from the index alone; no shard is opened for that.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovos_ray.data.folders.description import pack_command
from ovos_ray.data.masks import MAX_PIXELS, ObjectBox
from ovos_ray.errors import DataError, StorageError
from ovos_ray.paths import checked_name
from ovos_ray.storage import Storage

__all__ = ["INDEX_NAME", "LabelBudget", "ShardFile", "ShardIndex", "VideoEntry"]

INDEX_NAME = "index.json"
_VERSION = 1
_PLAIN_NAME = re.compile(r"\w[\w.-]{,99}", re.ASCII)


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

    def check(self, files: Sequence[ShardFile]) -> None:
        """Checks what `ShardIndex` says of a video.

        Raises:
            ValueError: A value has another type, or is out of range.
            DataError: The name of the video or of a frame cannot become part of a path.
        """
        name = checked_name(self.name, "video", INDEX_NAME, nested=True)
        for key, value, high in (
            ("num_frames", self.num_frames, len(self.frame_names)),
            ("height", self.height, MAX_PIXELS),
            ("width", self.width, MAX_PIXELS // self.height if type(self.height) is int and self.height > 0 else 1),
        ):
            _whole(f"{key} of {name!r}", value, 1, high)
        _require(self.num_frames == len(self.frame_names), f"frame_names of {name!r}", len(self.frame_names))
        for frame_name in self.frame_names:
            if not (isinstance(frame_name, str) and _PLAIN_NAME.fullmatch(frame_name)):
                checked_name(frame_name, "frame", INDEX_NAME)
        _whole(f"shard of {name!r}", self.shard, 0, len(files) - 1)
        _whole(f"first_row of {name!r}", self.first_row, 0, files[self.shard].num_rows - self.num_frames)
        for frame in self.label_frames:
            _whole(f"label frame of {name!r}", frame, 0, self.num_frames - 1)
        _require(list(self.label_frames) == sorted(set(self.label_frames)), f"label_frames of {name!r}", "not rising")
        _require(set(self.objects) == set(self.label_frames), f"objects of {name!r}", sorted(self.objects))
        for box in itertools.chain.from_iterable(self.objects.values()):
            inside = 0 <= box.x0 < box.x1 <= self.width and 0 <= box.y0 < box.y1 <= self.height
            fits = inside and 1 <= box.area <= (box.x1 - box.x0) * (box.y1 - box.y0)
            whole = all(type(number) is int for number in vars(box).values())
            _require(whole and 1 <= box.object_id <= 255 and fits, f"object of {name!r}", box)


def _require(fine: bool, what: str, value: object) -> None:
    if not fine:
        raise ValueError(f"{what}: {value!r:.80}")


def _is_count(labels: str) -> bool:
    return isinstance(labels, str) and labels.isascii() and labels.isdecimal()


def _whole(what: str, value: object, low: int, high: int = 2**40) -> None:
    """Checks a whole number, which a bool is not."""
    _require(type(value) is int and low <= value <= high, f"{what}, expected {low} … {high}", value)


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
        labels: `first` (one label a video), `all`, a number of labels a video, or `frames` (those that were named).
        frame_interval: Video frames between two stored frames (YouTube-VOS: 5).
        shortest_side: Limit frames were scaled down to, None for untouched frames.
        num_reencoded: Frames stored as new JPEGs of quality 95, because they were scaled or were no JPEG files.
        budget: Labels stored against labels possible.
        digest: 16 hex digits of the content: names, order, frames and labels, not file boundaries.
        source_digest: 16 hex digits of names, sizes and times of the packed files and of the options.
        rows_per_group: Rows in every row group but the last of a file.
        files: The Parquet files.
        videos: Sorted by name.
        root: The folder that was packed, for proposals alone; empty where an earlier version packed it.
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
    root: str = ""

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

    def check(self) -> None:
        """Checks what may come from a stranger: names become paths, numbers become sizes and places in files.

        Raises:
            ValueError: A value has another type, or is out of range.
            DataError: A name cannot become part of a path.
        """
        texts = (self.dataset, self.layout, self.split, self.digest, self.source_digest)
        _require(all(isinstance(text, str) for text in texts), "texts", texts)
        _require(self.labels in ("first", "all", "frames") or _is_count(self.labels), "labels", self.labels)
        _whole("frame_interval", self.frame_interval, 1)
        _whole("rows_per_group", self.rows_per_group, 1)
        _whole("num_reencoded", self.num_reencoded, 0)
        if self.shortest_side is not None:
            _whole("shortest_side", self.shortest_side, 1)
        for file in self.files:
            checked_name(file.name, "shard file", INDEX_NAME)
            _whole(f"num_rows of {file.name}", file.num_rows, 1)
        for video in self.videos:
            video.check(self.files)
        _require(len({video.name for video in self.videos}) == len(self.videos), "videos", "two of one name")

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
            StorageError: The bucket cannot be reached.
        """
        storage = Storage(str(folder))
        path = storage.location(INDEX_NAME)
        try:
            value: dict[str, Any] = json.loads(storage.read(INDEX_NAME))
        except StorageError:
            raise
        except FileNotFoundError as error:
            raise DataError(
                f"{folder}: no shards here ({INDEX_NAME} is missing)",
                f"make them: {pack_command(str(folder))}",
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: unreadable index ({error})", "pack the dataset again with --overwrite") from error
        try:
            version = value.pop("version")
            if version != _VERSION:
                raise DataError(
                    f"{path}: index of version {version}, expected {_VERSION}",
                    "pack the dataset again with --overwrite",
                )
            value["budget"] = LabelBudget(**value["budget"])
            for number in dataclasses.astuple(value["budget"]):
                _whole("budget", number, 0)
            value["files"] = tuple(ShardFile(**file) for file in value["files"])
            value["videos"] = tuple(_video(video) for video in value["videos"])
            index = cls(**value)
            index.check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: damaged index ({error!r})", "pack the dataset again with --overwrite") from error
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
        return index


def _video(value: dict[str, Any]) -> VideoEntry:
    value["frame_names"] = tuple(value["frame_names"])
    value["label_frames"] = tuple(value["label_frames"])
    value["objects"] = {
        int(frame): tuple(ObjectBox(*box) for box in found) for frame, found in value["objects"].items()
    }
    return VideoEntry(**value)
