"""Masks that are no images of object ids: colours of a table, and the run lengths and outlines of COCO and its kin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovos_ray.data.masks import DAVIS_PALETTE, MAX_PIXELS, image_size
from ovos_ray.errors import DataError, MissingExtraError

__all__ = ["VOC_COLOURS", "ColourMasks", "DrawnObjects", "read_colours"]

_MOST_OBJECTS = 64  # of a frame, as in other masks
_MOST_BITS = 40  # of a run length
_LINE = re.compile(r"([^:]+):\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*(?::.*)?")

VOC_COLOURS: dict[str, int] = {f"#{DAVIS_PALETTE[3 * i : 3 * i + 3].hex()}": i for i in range(_MOST_OBJECTS + 1)}
"""The colours in which PASCAL VOC, DAVIS and CVAT paint objects 1, 2, 3 …"""


def read_colours(path: Path) -> dict[str, int]:
    """Reads a table of colours: lines of `NAME:R,G,B`, as in CVAT's `labelmap.txt`; objects are numbered as they come.

    Black, and what is called background, is 0.

    Raises:
        DataError: It cannot be read.
    """
    colours = {"#000000": 0}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "give a file of lines NAME:R,G,B") from error
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or max(int(part) for part in found.groups()[1:]) > 255:
            raise DataError(f"{path}: {line[:80]!r} is not a colour", "write NAME:R,G,B, such as cat:255,0,0")
        colour = "#" + bytes(int(part) for part in found.groups()[1:]).hex()
        colours.setdefault(colour, 0 if found[1].strip() == "background" else 1 + max(colours.values()))
    return colours


@dataclass(frozen=True)
class ColourMasks:
    """Masks whose colours say which object is where.

    Attributes:
        masks: Image files by frame.
        colours: Object ids by colour, such as `#ff0000`.
    """

    masks: Mapping[int, Path]
    colours: Mapping[str, int]

    def __call__(self, frame: int) -> npt.NDArray[np.uint8]:
        """Returns a mask as (H, W) uint8 object ids.

        Raises:
            DataError: It is damaged, or has a colour that the table does not have.
        """
        path = self.masks[frame]
        image_size(path)  # refuses what is no image, or too large, in our own words
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"), np.uint32)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path}: damaged image ({error})", "replace or remove the file") from error
        codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        present, places = np.unique(codes, return_inverse=True)
        names = [f"#{code:06x}" for code in present.tolist()]
        if unknown := [name for name in names if name not in self.colours]:
            raise DataError(
                f"{path}: {len(unknown)} colours that the table does not have ({', '.join(unknown[:5])})",
                "add them to the table, or save masks without smoothing and never as JPEG",
            )
        ids: npt.NDArray[np.uint8] = np.array([self.colours[name] for name in names], np.uint8)
        mask: npt.NDArray[np.uint8] = ids[places.reshape(codes.shape)]
        return mask


@dataclass(frozen=True)
class DrawnObjects:
    """Objects as COCO, YouTube-VIS and BURST write them.

    Attributes:
        source: The file they come from; for messages.
        size: Height and width of the frames.
        frames: By frame and object id: outlines (lists of x, y, x, y …), or run lengths (`counts`, `size`).
    """

    source: Path
    size: tuple[int, int]
    frames: Mapping[int, Mapping[int, Any]]

    def __call__(self, frame: int) -> npt.NDArray[np.uint8]:
        """Returns a mask as (H, W) uint8 object ids; where objects overlap, the one with the larger id shows.

        Raises:
            MissingExtraError: There are outlines, and pycocotools is not installed.
            DataError: The frame's objects cannot be drawn.
        """
        objects = self.frames[frame]
        if not 0 < self.size[0] * self.size[1] <= MAX_PIXELS or max(objects, default=0) > 254:
            raise DataError(f"{self.source}: frame {frame} of {self.size} with object ids {list(objects)[:9]}")
        if len(objects) > _MOST_OBJECTS:
            raise DataError(f"{self.source}: {len(objects)} objects in frame {frame}, more than {_MOST_OBJECTS}")
        mask = np.zeros(self.size, np.uint8)
        for object_id in sorted(objects):
            mask[self._decoded(objects[object_id], frame)] = object_id
        return mask

    def _decoded(self, drawn: Any, frame: int) -> npt.NDArray[np.bool_]:
        height, width = self.size
        try:
            if isinstance(drawn, list):
                return self._outlined(drawn)
            value = {"counts": drawn, "size": [height, width]} if isinstance(drawn, str) else drawn
            counts = _run_lengths(value["counts"]) if isinstance(value["counts"], str) else value["counts"]
            runs = np.array(counts, np.int64)
            if list(value["size"]) != [height, width] or runs.min() < 0 or runs.sum() != height * width:
                raise ValueError(f"run lengths of {value['size']} for {[height, width]} (height, width)")
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise DataError(f"{self.source}: the mask of frame {frame} cannot be drawn ({error})") from error
        own: npt.NDArray[np.bool_] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        return own

    def _outlined(self, outlines: list[Any]) -> npt.NDArray[np.bool_]:
        try:
            from pycocotools import mask as coco
        except ImportError as error:
            raise MissingExtraError("pycocotools", "coco", f"drawing the outlines of {self.source.name}") from error
        if not all(len(points) >= 6 and len(points) % 2 == 0 for points in outlines):
            raise ValueError("an outline of fewer than three points")
        inside = [np.clip(np.array(points, np.float64), 0, max(self.size)).tolist() for points in outlines]
        return np.asarray(coco.decode(coco.merge(coco.frPyObjects(inside, *self.size))), bool)


def _run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, a sixth if more follow; from the third on, differences."""
    counts: list[int] = []
    number = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        number |= (bits & 0x1F) << shift
        shift += 5
        if shift > _MOST_BITS:
            raise ValueError("a run length of no image")
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("run lengths that are cut short")
    return counts
