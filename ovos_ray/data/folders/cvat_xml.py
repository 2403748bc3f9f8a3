"""CVAT's own XML, "CVAT for images 1.1" and "CVAT for video 1.1": masks by run lengths, and outlines.

A file comes from a stranger: it is read as a stream, and refused where it declares entities, which could grow without
an end or lead to other files.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from xml.parsers import expat

from ovos_ray.data.folders.base import DatasetFolder, files_in, folders_in, natural_key
from ovos_ray.data.folders.drawn_masks import BoxedRuns
from ovos_ray.data.folders.json_videos import FRAME_FOLDERS, JsonVideo, drawn_video
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError
from ovos_ray.paths import checked_name

__all__ = ["CvatXml"]

_WITHOUT_PIXELS = frozenset({"box", "cuboid", "ellipse", "points", "polyline", "skeleton"})
_NUMBERED = re.compile(r"frame_(\d{1,9})")


class CvatXml(DatasetFolder):
    """Exports with images: a folder with one XML file, or folders with one each.

    Of images, those of a folder are a video, and an object is the same in two frames where its attribute `track_id` is;
    without it objects are numbered in each image as they come. A video's tracks are its objects, interpolated outlines
    are labels like the others. What has the larger `z_order` covers the rest. Boxes, points and lines are passed over.
    """

    layout = "cvat-xml"
    expected = "annotations.xml (CVAT for images or video 1.1) and images/[VIDEO/]FRAME.jpg, or VIDEO/ with both in it"
    recognised: ClassVar[bool] = False

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout may begin in this folder."""
        return bool(_exports(folder))

    @functools.cached_property
    def _videos(self) -> dict[str, tuple[Path, JsonVideo]]:
        found: dict[str, tuple[Path, JsonVideo]] = {}
        for source in _exports(self.root):
            try:
                videos = _File(source).videos()
            except (expat.ExpatError, OSError, ValueError, KeyError, OverflowError) as error:
                raise DataError(f"{source}: not a file of CVAT 1.1 ({error!r})", self.expected) from error
            for name, video in videos.items():
                if name in found:
                    raise DataError(f"{source}: another video {name!r} is in {found[name][0]}", "rename one")
                found[name] = source, video
        return found

    def _list(self, split: str) -> list[str]:
        return list(self._videos)

    def _open(self, split: str, name: str) -> Video:
        source, video = self._videos[name]
        for frame in video.frames:
            checked_name(frame, "frame", source, nested=True)
        places = [source.parent / part for part in FRAME_FOLDERS]
        places += folders_in(source.parent / "images")  # of a project's subsets, which the names do not hold
        return drawn_video(name, video, source, places, layered=True)


def _exports(root: Path) -> list[Path]:
    """One XML file of the folder itself, or of each folder in it."""
    return [path for folder in (root, *folders_in(root)) for path in sorted(folder.glob("*.xml"))[:1]]


class _File:
    """What stands in one file, gathered while it is read."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._images: list[tuple[str, tuple[int, int]]] = []
        self._shapes: list[tuple[int, int, Any, Any]] = []
        """Of each: frame, z_order, object (None: not said), and how it is drawn."""
        self._others: Counter[str] = Counter()
        self._path: list[str] = []
        self._text: dict[str, str] = {}
        self._track: str | None = None
        self._is_track_id = self._is_shown = False
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        with open(source, "rb") as file:
            parser.ParseFile(file)

    def _refuse(self, *_: Any) -> None:
        raise DataError(f"{self._source}: declares a document type, as no export of CVAT does", "remove it")

    def _start(self, name: str, given: dict[str, str]) -> None:
        self._path.append(name)
        if name == "image":
            self._images.append((given["name"], (int(given["height"]), int(given["width"]))))
        elif name == "track":
            self._track = given["id"]
        elif name in ("mask", "polygon") and given.get("outside") == "1":
            self._is_shown = False
        elif name in ("mask", "polygon"):
            self._is_shown = True
            frame = len(self._images) - 1 if self._track is None else int(given["frame"])
            drawn = _outline(given) if name == "polygon" else _runs(given)
            self._shapes.append((frame, int(given.get("z_order", 0)), self._track, drawn))
        elif name in _WITHOUT_PIXELS:
            self._others[name] += 1
        self._is_track_id = name == "attribute" and given.get("name") == "track_id"

    def _characters(self, text: str) -> None:
        if self._is_track_id and self._is_shown and self._path[-2:-1] in (["mask"], ["polygon"]) and text.strip():
            frame, z_order, _, drawn = self._shapes[-1]
            self._shapes[-1] = frame, z_order, text.strip()[:100], drawn
        elif self._path[-2:-1] == ["original_size"]:
            self._text[self._path[-1]] = text

    def _end(self, name: str) -> None:
        self._path.pop()
        if name == "track":
            self._track = None

    def videos(self) -> dict[str, JsonVideo]:
        """Returns the videos by name.

        Raises:
            DataError: There is nothing with pixels, or what is drawn belongs to no frame.
        """
        if self._others and not self._shapes:
            found = ", ".join(f"{number} of {name}" for name, number in self._others.items())
            raise DataError(
                f"{self._source}: no masks and no polygons, only {found}", "draw masks: a box does not say which pixels"
            )
        return self._of_images() if self._images else self._of_tracks()

    def _of_images(self) -> dict[str, JsonVideo]:
        found: dict[str, JsonVideo] = {}
        places: dict[int, tuple[JsonVideo, int]] = {}
        for index, (path, size) in sorted(enumerate(self._images), key=lambda one: natural_key(Path(one[1][0]))):
            parent = str(PurePosixPath(path).parent)
            video = found.setdefault(self._source.parent.name if parent == "." else parent, JsonVideo(size, []))
            places[index] = video, len(video.frames)
            video.frames.append(path)
        self._add(places)
        return found

    def _of_tracks(self) -> dict[str, JsonVideo]:
        folders = [self._source.parent / part for part in FRAME_FOLDERS]
        frames = next((files for folder in folders if (files := files_in(folder))), [])
        numbers = [_NUMBERED.fullmatch(path.stem) for path in frames]
        video = JsonVideo((int(self._text["height"]), int(self._text["width"])), [path.name for path in frames])
        named = all(numbers)
        self._add({int(one[1]) if named and one else index: (video, index) for index, one in enumerate(numbers)})
        return {self._source.parent.name: video}

    def _add(self, places: dict[int, tuple[JsonVideo, int]]) -> None:
        for frame, _, track, drawn in sorted(self._shapes, key=lambda shape: shape[1]):
            if frame not in places:
                raise DataError(f"{self._source}: a mask of frame {frame}, which has no image", "export with images")
            video, index = places[frame]
            objects = video.objects.setdefault(index, {})
            name = f"in order {len(objects):03d}" if track is None else track
            objects[name] = (*objects.pop(name, ()), drawn)  # anew, so that it covers what came before


def _runs(given: dict[str, str]) -> BoxedRuns:
    left, top, width, height = (int(given[key]) for key in ("left", "top", "width", "height"))
    return BoxedRuns((left, top, width, height), given["rle"])


def _outline(given: dict[str, str]) -> list[list[float]]:
    return [[float(number) for point in given["points"].split(";") for number in point.split(",")]]
