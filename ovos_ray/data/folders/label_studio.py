"""Label Studio's "Brush labels to PNG": a file for each object of each task, white on black, and the tasks' JSON."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from ovos_ray.data.folders.base import DatasetFolder, files_in, folders_in, has_images
from ovos_ray.data.folders.drawn_masks import LayerMasks
from ovos_ray.data.folders.json_videos import FRAME_FOLDERS, number_objects
from ovos_ray.data.folders.video import IMAGE_SUFFIXES, Video
from ovos_ray.errors import DataError
from ovos_ray.io import read_json

__all__ = ["LabelStudio"]

_LAYER = re.compile(r"task-(\d{1,18})-annotation-(\d{1,18})-by-[^-]*-(.+-\d+)\.png")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""Label Studio puts this before the name of a file that was uploaded."""


class LabelStudio(DatasetFolder):
    """Brush masks `task-…-annotation-…-by-…-tag-LABEL-N.png`, the project's JSON export, and the frames.

    The JSON says which image a task is of. An object is the same in two frames where label and number are: give each
    object of a video a label of its own.
    """

    layout = "label-studio"
    expected = "task-ID-annotation-ID-by-NAME-tag-LABEL-N.png, the project's JSON beside them, images/VIDEO/FRAME.jpg"
    recognised: ClassVar[bool] = False

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout may begin in this folder."""
        return any(folder.glob("*.json")) and next(_layers(folder), None) is not None

    @functools.cached_property
    def _frames(self) -> dict[str, list[Path]]:
        """Frames by video: folders of images, or those in one folder."""
        for base in (self.root / part for part in FRAME_FOLDERS[1:]):
            if found := {folder.name: files_in(folder) for folder in folders_in(base) if has_images(folder)}:
                return found
            if frames := files_in(base):
                return {self.root.name: frames}
        return {}

    def _list(self, split: str) -> list[str]:
        return list(self._frames)

    @functools.cached_property
    def _objects(self) -> dict[str, dict[int, dict[str, Path]]]:
        """Mask files by video, frame and the object's name."""
        images, places = self._images_of_tasks(), _Places(self._frames)
        found: dict[str, dict[int, dict[str, Path]]] = {}
        annotations: dict[str, str] = {}
        for path, task, annotation, name in _layers(self.root):
            if annotations.setdefault(task, annotation) != annotation:
                raise DataError(f"{path}: task {task} has annotation {annotations[task]}, too", "keep one of them")
            if task not in images:
                raise DataError(f"{path}: no task {task} in the project's JSON", "export it anew, with all tasks")
            video, frame = places.of(images[task], path)
            found.setdefault(video, {}).setdefault(frame, {})[name] = path
        return found

    def _images_of_tasks(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in sorted(self.root.glob("*.json")):
            try:
                tasks = read_json(source)
                found |= {str(task["id"]): _image_of(task["data"]) for task in tasks}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(f"{source}: not a JSON export of Label Studio ({error!r})", self.expected) from error
        return found

    def _open(self, split: str, name: str) -> Video:
        layers = number_objects(self._objects.get(name, {}))
        masks = {frame: next(iter(own.values())) for frame, own in layers.items()}
        return Video(name, tuple(self._frames[name]), None, masks, given="appearances", drawn=LayerMasks(layers))


class _Places:
    """Where the image of a task lies among the frames; its folder may have been another on the server."""

    def __init__(self, frames: dict[str, list[Path]]) -> None:
        self._known: dict[tuple[str, str], tuple[str, int]] = {}
        self._by_name: dict[str, list[tuple[str, int]]] = {}
        for video, paths in frames.items():
            for index, path in enumerate(paths):
                self._known[video, path.name] = video, index
                self._by_name.setdefault(path.name, []).append((video, index))

    def of(self, image: str, mask: Path) -> tuple[str, int]:
        path = PurePosixPath(image)
        for name in dict.fromkeys((path.name, _UPLOADED.sub("", path.name, count=1))):
            if (place := self._known.get((path.parent.name, name))) is not None:
                return place
            found = self._by_name.get(name, [])
            if len(found) == 1:
                return found[0]
            if found:
                videos = ", ".join(video for video, _ in found[:5])
                raise DataError(
                    f"{mask}: its image {image!r} is in several videos ({videos})",
                    "give frames names of their own, such as VIDEO-00000.jpg, or import them by their folders",
                )
        raise DataError(f"{mask}: its image {image!r} is not among the frames", "put them into images/VIDEO/")


def _layers(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yields path, task, annotation and object of the masks in a folder, or in folders of it."""
    for folder in (root, *folders_in(root)):
        for path in files_in(folder, frozenset({".png"})):
            if (found := _LAYER.fullmatch(path.name)) is not None:
                yield path, found[1], found[2], found[3]


def _image_of(data: dict[str, Any]) -> str:
    """Returns the path of a task's image: uploaded, behind an address, or of a local storage (`?d=`)."""
    for value in data.values():
        address = urlsplit(value) if isinstance(value, str) else None
        if address is None:
            continue
        path = parse_qs(address.query).get("d", [unquote(address.path)])[0]
        if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES:
            return path
    raise ValueError("a task without an image")
