"""A dataset folder: what every layout can do, and how files and folders are found.

Nothing but directory listings is read before a `Video` is asked for.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from ovos_ray.data.folders.description import DatasetDescription
from ovos_ray.data.folders.drawn_masks import ColourMasks
from ovos_ray.data.folders.video import IMAGE_SUFFIXES, Video
from ovos_ray.errors import DataError
from ovos_ray.paths import checked_name

__all__ = [
    "JPEG",
    "PNG",
    "DatasetFolder",
    "files_in",
    "find_below",
    "folders_in",
    "has_images",
    "match_masks",
    "natural_key",
]

PNG = frozenset({".png"})
JPEG = frozenset({".jpg", ".jpeg"})
_MAX_DEPTH = 3
_MAX_BREADTH = 100
_PARTS = frozenset({"JPEGImages", "Annotations", "ImageSets"})
_SYNONYMS = {"val": "valid", "valid": "val", "validation": "val"}


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part], path.name


def folders_in(folder: Path) -> list[Path]:
    """Visible subfolders, sorted by name; none of a folder that does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def has_images(folder: Path) -> bool:
    """Whether a folder holds a visible image; stops at the first."""
    return any(path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." for path in folder.iterdir())


def files_in(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Visible files with one of the suffixes, frame2 before frame10; none of a folder that does not exist."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(found, key=natural_key)


def find_below(root: Path) -> Iterator[Path]:
    """Yields the folders in which a dataset given as `root` may begin, nearest first.

    These are root itself, what it is a part of (`…/JPEGImages/480p`, `YouTube/train`), and up to three levels below.
    """
    part = bool({root.name, root.parent.name} & _PARTS) or (root / "Annotations").is_dir()
    above = [root.parent, root.parent.parent] if part else []
    level = [root, *above]
    for _ in range(_MAX_DEPTH + 1):
        yield from level
        below = []
        for folder in level:
            children = [child for child in folders_in(folder) if child.name not in _PARTS]
            below += children if len(children) <= _MAX_BREADTH and folder not in above else []
        level = below


def match_masks(name: str, frames: list[Path], masks: list[Path]) -> dict[int, Path]:
    """Returns mask files by the index of the frame of the same name.

    Raises:
        DataError: There are no frames, two of one name, or a mask without its frame.
    """
    if not frames:
        raise DataError(f"video {name!r} has no frames")
    position: dict[str, int] = {}
    for index, path in enumerate(frames):
        if path.stem in position:
            raise DataError(f"video {name!r}: two frames of one name: {frames[position[path.stem]]} and {path}")
        position[path.stem] = index
    for path in masks:
        if path.stem not in position:
            raise DataError(
                f"{path}: mask of a frame that is missing (video {name!r} has {frames[0].name} … {frames[-1].name} in "
                f"{frames[0].parent})",
                "restore the frame, or remove the mask",
            )
    return dict(sorted((position[path.stem], path) for path in masks))


class DatasetFolder(abc.ABC):
    """A dataset on disk, in one of the layouts.

    Attributes:
        root: The dataset's own folder.
        description: What is known of the dataset.
    """

    layout: ClassVar[str]
    """Name of the layout."""
    expected: ClassVar[str]
    """What the layout looks like; for messages."""
    stored_interval: ClassVar[int] = 1
    """Video frames between two stored frames, where no description says otherwise."""
    erroneous: ClassVar[tuple[str, ...]] = ()
    """Videos that are left out, where no description says otherwise."""
    recognised: ClassVar[bool] = True
    """Whether its marks tell it from other layouts; else it has to be named."""
    of_images: ClassVar[bool] = False
    """Whether a video of one frame is all right."""
    kept_by_server: ClassVar[bool] = False
    """Whether a benchmark's server may hold the masks of a split, so that it is no mistake if they are not there."""

    def __init__(self, root: Path, description: DatasetDescription) -> None:
        self.root = root
        self.description = description

    def __reduce__(self) -> tuple[type[DatasetFolder], tuple[Any, ...]]:
        return type(self), (self.root, self.description)  # listings are large, and made anew where they are needed

    @classmethod
    def bare(cls, name: str) -> DatasetDescription:
        """What the layout alone says of a dataset."""
        return DatasetDescription(
            name=name, layout=cls.layout, frame_interval=cls.stored_interval, excluded=cls.erroneous
        )

    @classmethod
    def places(cls, root: Path) -> Iterable[Path]:
        """Where a dataset given as `root` may begin, nearest first."""
        return find_below(root)

    @classmethod
    @abc.abstractmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are; of a layout that has none, all is `train`."""
        return ("train",)

    @abc.abstractmethod
    def _list(self, split: str) -> list[str]:
        """Names of the videos of an existing split."""

    @abc.abstractmethod
    def _open(self, split: str, name: str) -> Video:
        """A listed video."""

    def _listed_in(self, split: str) -> Path:
        """The file or folder that names the videos of an existing split; for messages."""
        return self.root

    def frame_interval(self, split: str) -> int:
        """Video frames between two frames of a split."""
        return self.description.frame_interval

    def resolve(self, split: str) -> str:
        """Returns the split's name in this dataset (`val` and `valid` stand for each other).

        Raises:
            DataError: There is no such split; the message lists those there are.
        """
        if split in self.splits:
            return split
        if _SYNONYMS.get(split) in self.splits:
            return _SYNONYMS[split]
        there_are = ", ".join(self.splits) or f"none; expected {self.expected}"
        raise DataError(f"{self.place}: no split {split!r}; there are: {there_are}")

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a few folders live as long as the program
    def video_names(self, split: str) -> tuple[str, ...]:
        """Names of a split's videos, sorted, without the excluded ones; all of them fit to become part of a path.

        Raises:
            DataError: There is no such split, it is empty, or it names a video by what is no name.
        """
        there = self.resolve(split)
        source = self._listed_in(there)
        names = [checked_name(name, "video", source, nested=True) for name in self._list(there)]
        if not names:
            raise DataError(f"{self.place}: split {split!r} is empty; expected {self.expected}")
        return tuple(sorted(set(names) - set(self.description.excluded)))

    def video(self, split: str, name: str) -> Video:
        """Returns one video.

        Raises:
            DataError: It is not in the split, has no frames, or a mask without its frame.
        """
        if name not in self._known(split):
            raise DataError(f"{self.place}: no video {name!r} in split {split!r}")
        video = self._open(self.resolve(split), name)
        colours = self.description.colours
        return dataclasses.replace(video, drawn=ColourMasks(video.masks, colours)) if colours else video

    @functools.lru_cache(maxsize=8)  # noqa: B019 - as above
    def _known(self, split: str) -> frozenset[str]:
        return frozenset(self.video_names(split))

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return str(self.root)

    @property
    def home(self) -> str:
        """What tells this dataset from others; shards that were packed from it have the same."""
        return str(self.root.resolve())

    def outline(self, split: str, name: str) -> tuple[int, Iterable[int]]:
        """Returns how many frames a video has, and the indices of those with a mask.

        Raises:
            DataError: See `video`.
        """
        video = self.video(split, name)
        return video.num_frames, video.masks

    def videos(self, split: str) -> Iterator[Video]:
        """Yields the videos of a split in the order of their names."""
        for name in self.video_names(split):
            yield self.video(split, name)
