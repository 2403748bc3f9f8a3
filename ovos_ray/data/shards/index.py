"""The index of a shard folder: which frames there are, which are labelled, what the labels show, and where rows lie.

Plans are made from the index alone; no shard is opened for that.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from ovos_ray.data.folders.description import pack_command
from ovos_ray.data.masks import ObjectBox
from ovos_ray.data.shards.video_entry import INDEX_NAME, ShardFile, VideoEntry, VideoOutline, require, whole
from ovos_ray.data.shards.video_table import VideoTable
from ovos_ray.errors import DataError, StorageError
from ovos_ray.paths import checked_name
from ovos_ray.storage import Storage

__all__ = ["INDEX_NAME", "LabelBudget", "ShardFile", "ShardIndex", "VideoEntry", "content_digest", "entry_of", "plain"]

_VERSION, _COLUMNAR_VERSION = 1, 2
_COLUMNAR_FROM = 10_000  # videos; see `benchmarks/README.md` for what both take


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
    videos: Sequence[VideoEntry]
    root: str = ""

    @functools.cached_property
    def _by_name(self) -> dict[str, VideoEntry]:
        return {video.name: video for video in self.videos}

    @property
    def table_name(self) -> str:
        """Name of the file of videos, where there are many."""
        return f"videos-{self.source_digest[:8]}.parquet"

    def outlines(self) -> Iterator[VideoOutline]:
        """Yields what planning needs of every video, in their order."""
        return self.videos.outlines() if isinstance(self.videos, VideoTable) else (v.outline for v in self.videos)

    def video(self, name: str) -> VideoEntry:
        """Returns the entry of a video.

        Raises:
            DataError: There is no such video.
        """
        found = self.videos.find(name) if isinstance(self.videos, VideoTable) else self._by_name.get(name)
        if found is None:
            raise DataError(f"no video {name!r} among the {len(self.videos)} of {self.dataset} {self.split}")
        return found

    def check(self) -> None:
        """Checks what may come from a stranger: names become paths, numbers become sizes and places in files.

        Raises:
            ValueError: A value has another type, or is out of range.
            DataError: A name cannot become part of a path.
        """
        texts = (self.dataset, self.layout, self.split, self.digest, self.source_digest, self.root)
        require(all(isinstance(text, str) for text in texts), "texts", texts)
        require(re.fullmatch("first|all|frames|[0-9]+", str(self.labels)) is not None, "labels", self.labels)
        whole("frame_interval", self.frame_interval, 1)
        whole("rows_per_group", self.rows_per_group, 1)
        whole("num_reencoded", self.num_reencoded, 0)
        if self.shortest_side is not None:
            whole("shortest_side", self.shortest_side, 1)
        for file in self.files:
            checked_name(file.name, "shard file", INDEX_NAME)
            whole(f"num_rows of {file.name}", file.num_rows, 1)
        if isinstance(self.videos, VideoTable):
            self.videos.check()
            return
        for video in self.videos:
            video.check(self.files)
        require(len({video.name for video in self.videos}) == len(self.videos), "videos", "two of one name")

    def save(self, storage: Storage, *, columnar: bool | None = None) -> None:
        """Writes the index: JSON, and where there are many videos these as a table beside it.

        Args:
            storage: The shard folder.
            columnar: Whether videos become a table; None: from 10,000 on. A small index is a pleasure to read.
        """
        value = {"version": _VERSION} | {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        value["budget"], value["files"] = vars(self.budget), [vars(file) for file in self.files]
        if len(self.videos) >= _COLUMNAR_FROM if columnar is None else columnar:
            # No table of a bucket takes another's name: the index that is there stays good until the new one is.
            value["version"] = _COLUMNAR_VERSION
            digest = VideoTable.of(self.videos, self.files).save(storage, self.table_name)
            value["videos"] = {"file": self.table_name, "number": len(self.videos), "digest": digest}
        else:
            value["videos"] = [plain(video) for video in self.videos]
        storage.write((json.dumps(value, separators=(",", ":")) + "\n").encode(), INDEX_NAME)

    @classmethod
    def load(cls, folder: str | Path) -> ShardIndex:
        """Reads the index of a shard folder or bucket URI.

        Raises:
            DataError: The folder holds no index, or one that is damaged or of another version.
            StorageError: The bucket cannot be reached.
        """
        return cls._parsed(folder, _content(folder))

    @classmethod
    def shared(cls, folder: str | Path) -> ShardIndex:
        """Returns what `load` does, but the same object to all in this process, and the same memory to all of a node.

        Raises:
            DataError: As `load`.
            StorageError: The bucket cannot be reached.
        """
        content = _content(folder)
        key = (str(folder), hashlib.blake2b(content).digest())  # a folder may be packed again
        if (found := _SHARED.get(key)) is None:
            found = _SHARED[key] = cls._parsed(folder, content, shared=True)
        return found

    @classmethod
    def _parsed(cls, folder: str | Path, content: bytes, *, shared: bool = False) -> ShardIndex:
        path = Storage(str(folder)).location(INDEX_NAME)
        try:
            value: dict[str, Any] = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: unreadable index ({error})", "pack the dataset again with --overwrite") from error
        try:
            version = value.pop("version")
            if version not in (_VERSION, _COLUMNAR_VERSION):
                raise DataError(
                    f"{path}: index of version {version}, expected {_VERSION} or {_COLUMNAR_VERSION}",
                    "pack the dataset again with --overwrite",
                )
            value["budget"] = LabelBudget(**value["budget"])
            for number in dataclasses.astuple(value["budget"]):
                whole("budget", number, 0)
            value["files"] = tuple(ShardFile(**file) for file in value["files"])
            videos = value["videos"]
            if version == _VERSION:
                value["videos"] = tuple(entry_of(video) for video in videos)
            else:
                named = (videos["number"], videos["file"], videos.get("digest"))
                value["videos"] = VideoTable.load(folder, value["files"], *named, shared=shared)
            index = cls(**value)
            index.check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: damaged index ({error!r})", "pack the dataset again with --overwrite") from error
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
        return index


_SHARED: WeakValueDictionary[tuple[str, bytes], ShardIndex] = WeakValueDictionary()


def _content(folder: str | Path) -> bytes:
    storage = Storage(str(folder))
    try:
        return storage.read(INDEX_NAME)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{folder}: no shards here ({INDEX_NAME} is missing)", f"make them: {pack_command(str(folder))}"
        ) from error
    except OSError as error:
        path = storage.location(INDEX_NAME)
        raise DataError(f"{path}: unreadable index ({error})", "pack the dataset again with --overwrite") from error


def content_digest(checksums: Iterable[str]) -> str:
    """Returns 16 hex digits of all rows' checksums in the order of the index, joined by line or given one by one."""
    state = hashlib.blake2b(digest_size=8)
    for number, text in enumerate(checksums):
        state.update(f"\n{text}".encode() if number else text.encode())
    return state.hexdigest()


def plain(video: VideoEntry) -> dict[str, Any]:
    """Returns an entry as JSON holds it."""
    objects = {str(frame): [list(vars(box).values()) for box in own] for frame, own in video.objects.items()}
    return {**vars(video), "objects": objects}


def entry_of(value: dict[str, Any]) -> VideoEntry:
    """Returns the entry that JSON holds; it is not checked."""
    value["frame_names"] = tuple(value["frame_names"])
    value["label_frames"] = tuple(value["label_frames"])
    value["objects"] = {
        int(frame): tuple(ObjectBox(*box) for box in found) for frame, found in value["objects"].items()
    }
    return VideoEntry(**value)
