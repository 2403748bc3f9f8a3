"""One video of a shard folder, as the index describes it, and the file that holds its rows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ovos_ray.data.masks import MAX_PIXELS, ObjectBox
from ovos_ray.paths import checked_name

__all__ = ["INDEX_NAME", "ShardFile", "VideoEntry", "VideoOutline", "require", "whole"]

INDEX_NAME = "index.json"
_PLAIN_NAME = re.compile(r"\w[\w.-]{,99}", re.ASCII)


class VideoOutline(NamedTuple):
    """What planning needs of a video: its length, its labels, and those of them that show an object (`shown`)."""

    name: str
    num_frames: int
    label_frames: tuple[int, ...]
    shown: tuple[int, ...]


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

    @property
    def outline(self) -> VideoOutline:
        """What planning needs."""
        shown = tuple(frame for frame in self.label_frames if self.objects.get(frame))
        return VideoOutline(self.name, self.num_frames, self.label_frames, shown)

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
            whole(f"{key} of {name!r}", value, 1, high)
        require(self.num_frames == len(self.frame_names), f"frame_names of {name!r}", len(self.frame_names))
        for frame_name in self.frame_names:
            if not (isinstance(frame_name, str) and _PLAIN_NAME.fullmatch(frame_name)):
                checked_name(frame_name, "frame", INDEX_NAME)
        whole(f"shard of {name!r}", self.shard, 0, len(files) - 1)
        whole(f"first_row of {name!r}", self.first_row, 0, files[self.shard].num_rows - self.num_frames)
        for frame in self.label_frames:
            whole(f"label frame of {name!r}", frame, 0, self.num_frames - 1)
        require(list(self.label_frames) == sorted(set(self.label_frames)), f"label_frames of {name!r}", "not rising")
        require(set(self.objects) == set(self.label_frames), f"objects of {name!r}", sorted(self.objects))
        for box in itertools.chain.from_iterable(self.objects.values()):
            inside = 0 <= box.x0 < box.x1 <= self.width and 0 <= box.y0 < box.y1 <= self.height
            fits = inside and 1 <= box.area <= (box.x1 - box.x0) * (box.y1 - box.y0)
            integers = all(type(number) is int for number in vars(box).values())
            require(integers and 1 <= box.object_id <= 255 and fits, f"object of {name!r}", box)


def require(fine: bool, what: str, value: object) -> None:
    """Raises ValueError with what has which value, unless it is fine."""
    if not fine:
        raise ValueError(f"{what}: {value!r:.80}")


def whole(what: str, value: object, low: int, high: int = 2**40) -> None:
    """Checks a whole number, which a bool is not."""
    require(type(value) is int and low <= value <= high, f"{what}, expected {low} … {high}", value)


@dataclass(frozen=True)
class ShardFile:
    """One Parquet file of a shard folder."""

    name: str
    num_rows: int
