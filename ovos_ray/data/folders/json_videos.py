"""Videos whose masks stand in a JSON file; the layouts beside this file say how each kind writes them."""

from __future__ import annotations

import abc
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ovos_ray.data.folders.base import DatasetFolder, folders_in
from ovos_ray.data.folders.drawn_masks import DrawnObjects
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError
from ovos_ray.io import read_json
from ovos_ray.paths import checked_name

__all__ = ["FRAME_FOLDERS", "JsonVideo", "JsonVideos", "drawn_video", "number_objects"]

FRAME_FOLDERS = ("", "JPEGImages", "images", "frames", "data", "rawframes")
_AFFIX = re.compile(r"^(instances|annotations)_|_(annotations|all_annotations|instances)$")


@dataclass
class JsonVideo:
    """One video as a JSON file describes it.

    Attributes:
        size: Height and width of its frames.
        frames: Paths of its frames below the folder of frames, in temporal order.
        objects: By frame and the file's own name of the object: its mask, as `DrawnObjects` takes it.
    """

    size: tuple[int, int]
    frames: list[str]
    objects: dict[int, dict[Any, Any]] = field(default_factory=dict)

    def add(self, frame: int, object_name: Any, drawn: Any) -> None:
        """Adds an object's mask in a frame, unless it is empty."""
        if drawn:
            self.objects.setdefault(frame, {})[object_name] = drawn


class JsonVideos(DatasetFolder):
    """A split is a file `SPLIT.json` in the folder or in `annotations/`, or `SPLIT/instances.json`.

    Objects of a video are numbered from 1 in the order of the file's own names. Frames lie in the folder itself, in
    `JPEGImages/`, `images/` or `frames/`, with or without the split's name.
    """

    recognised: ClassVar[bool] = False

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout may begin in this folder."""
        return bool(cls._files(folder))

    @classmethod
    def _files(cls, folder: Path) -> dict[str, Path]:
        places = [*sorted(folder.glob("*.json")), *sorted((folder / "annotations").glob("*.json"))]
        found = {_AFFIX.sub("", path.stem): path for path in places}
        found |= {own.name: own / "instances.json" for own in folders_in(folder) if (own / "instances.json").is_file()}
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are; where there is one file, `train` stands for it."""
        found = self._files(self.root)
        return tuple(found) + (("train",) if len(found) == 1 and "train" not in found else ())

    def _listed_in(self, split: str) -> Path:
        files = self._files(self.root)
        return files[split] if split in files else next(iter(files.values()))

    @abc.abstractmethod
    def _parse(self, value: Any, split: str) -> dict[str, JsonVideo]:
        """Returns the videos of a file by name."""

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a few folders live as long as the program
    def _videos(self, split: str) -> dict[str, JsonVideo]:
        path = self._listed_in(split)
        try:
            return self._parse(read_json(path), split)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise DataError(f"{path}: not a file of layout {self.layout} ({error!r})", self.expected) from error

    def _list(self, split: str) -> list[str]:
        return list(self._videos(split))

    def _open(self, split: str, name: str) -> Video:
        source, video = self._listed_in(split), self._videos(split)[name]
        for frame in video.frames:
            checked_name(frame, "frame", source, nested=True)
        places = [self.root / own / part for own in ("", split, f"frames/{split}") for part in FRAME_FOLDERS]
        return drawn_video(name, video, source, places)


def drawn_video(name: str, video: JsonVideo, source: Path, places: Sequence[Path], *, layered: bool = False) -> Video:
    """Returns a video whose masks a file describes.

    Args:
        name: Its name.
        video: What the file says of it.
        source: The file.
        places: Below which its frames may lie.
        layered: See `DrawnObjects`.

    Raises:
        DataError: A frame is missing, or there is a mask of none.
    """
    base = _folder_of_frames(name, video.frames, source, places)
    if (last := max(video.objects, default=0)) >= len(video.frames):
        raise DataError(f"{source}: a mask of frame {last} of video {name!r}, which has {len(video.frames)} frames")
    objects = number_objects(video.objects)
    return Video(
        name,
        tuple(base / frame for frame in video.frames),
        None,
        dict.fromkeys(objects, source),
        given="appearances",
        drawn=DrawnObjects(source, video.size, objects, layered),
    )


def _folder_of_frames(name: str, frames: Sequence[str], source: Path, places: Sequence[Path]) -> Path:
    """Returns below which folder the frames of a video lie: the first that has its first frame.

    Raises:
        DataError: A frame is missing.
    """
    base = next((place for place in places if frames and (place / frames[0]).is_file()), None)
    missing = frames[:1] if base is None else [frame for frame in frames if not (base / frame).is_file()][:1]
    if base is None or missing:
        where = base or places[0]
        raise DataError(f"{where}: missing frames of video {name!r}: {missing}, which {source} lists")
    return base


def number_objects(objects: Mapping[int, Mapping[Any, Any]]) -> dict[int, dict[int, Any]]:
    """Returns what shows each object of each frame, with ids from 1 in the order of the objects' names."""
    names = sorted({own for shown in objects.values() for own in shown}, key=_order)
    number = {own: index for index, own in enumerate(names, 1)}
    return {frame: {number[own]: drawn for own, drawn in shown.items()} for frame, shown in sorted(objects.items())}


def _order(name: Any) -> tuple[int, int, str]:
    text = str(name)
    return (0, int(text), "") if text.isdecimal() and len(text) < 20 else (1, 0, text)
