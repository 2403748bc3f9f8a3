"""Masks that are no images of object ids: colours of a table, run lengths and outlines of COCO and its kin, layers."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import DAVIS_PALETTE, MAX_PIXELS, decode_binary_mask, decode_image, image_size
from ovos_ray.errors import DataError, MissingExtraError

__all__ = ["VOC_COLOURS", "BoxedRuns", "ColourMasks", "DrawnObjects", "LayerMasks", "read_colours"]

_MOST_OBJECTS = 64  # of a frame, as in other masks
_MOST_BITS = 40  # of a run length
_LONGEST_OUTLINE = 2**22  # in pixels
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

    def __call__(self, frame: int) -> UInt8Array:
        """Returns a mask as (H, W) uint8 object ids.

        Raises:
            DataError: It is damaged, or has a colour that the table does not have.
        """
        path = self.masks[frame]
        red, green, blue = np.moveaxis(decode_image(path), 2, 0)
        codes = red.astype(np.uint32) << 16
        codes |= green.astype(np.uint32) << 8
        codes |= blue
        present = np.unique(codes).tolist()
        names = [f"#{code:06x}" for code in present]
        if unknown := [name for name in names if name not in self.colours]:
            raise DataError(
                f"{path}: {len(unknown)} colours that the table does not have ({', '.join(unknown[:5])})",
                "add them to the table, or save masks without smoothing and never as JPEG",
            )
        mask = np.zeros(codes.shape, np.uint8)
        for code, name in zip(present, names, strict=True):
            if self.colours[name]:
                mask[codes == code] = self.colours[name]
        return mask


@dataclass(frozen=True)
class LayerMasks:
    """Masks of one object a file, white on black.

    Attributes:
        layers: Files by frame and object id.
    """

    layers: Mapping[int, Mapping[int, Path]]

    def __call__(self, frame: int) -> UInt8Array:
        """Returns a mask as (H, W) uint8 object ids; where objects overlap, the one with the larger id shows.

        Raises:
            DataError: A file is damaged, or of another size than the others.
        """
        layers = sorted(self.layers[frame].items())
        first = layers[0][1]
        if len(layers) > _MOST_OBJECTS or layers[-1][0] > 254:
            raise DataError(f"{first}: {len(layers)} objects in a frame, at most {_MOST_OBJECTS}; 254 in a video")
        mask = np.zeros(image_size(first), np.uint8)
        for object_id, path in layers:  # one at a time: a stranger's may be large
            layer = decode_binary_mask(path)
            if layer.shape != mask.shape:
                raise DataError(f"{path}: another size than {first.name}, of the same frame")
            mask[layer > 0] = object_id
        return mask


@dataclass(frozen=True)
class BoxedRuns:
    """Run lengths along the rows of a box, background first, as CVAT writes them.

    Attributes:
        box: Left, top, width and height in pixels.
        runs: The lengths, with commas between.
    """

    box: tuple[int, int, int, int]
    runs: str

    def draw(self, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Returns (height, width), True inside.

        Raises:
            ValueError: The box is not inside the frame, or the runs do not fill it.
        """
        left, top, wide, high = self.box
        runs = [int(length) for length in self.runs.split(",")]
        inside = min(left, top) >= 0 and min(wide, high) >= 1 and left + wide <= width and top + high <= height
        if not inside or min(runs) < 0 or sum(runs) != wide * high:
            raise ValueError(f"run lengths of the box {self.box} (left, top, width, height)")
        mask = np.zeros((height, width), bool)
        filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        mask[top : top + high, left : left + wide] = filled.reshape(high, wide)
        return mask


@dataclass(frozen=True)
class DrawnObjects:
    """Objects as COCO, YouTube-VIS and BURST write them.

    Attributes:
        source: The file they come from; for messages.
        size: Height and width of the frames.
        frames: By frame and object id: outlines (lists of x, y, x, y …), run lengths (`counts`, `size`), or a tuple of
            parts that are each one of these, or `BoxedRuns`.
        layered: Whether the later ones of a frame cover the earlier ones, whatever their ids.
    """

    source: Path
    size: tuple[int, int]
    frames: Mapping[int, Mapping[int, Any]]
    layered: bool = False

    def __call__(self, frame: int) -> UInt8Array:
        """Returns a mask as (H, W) uint8 object ids; where objects overlap, the one with the larger id shows.

        Raises:
            MissingExtraError: There are outlines, and pycocotools is not installed.
            DataError: The frame's objects cannot be drawn.
        """
        objects = self.frames[frame]
        if min(self.size) < 1 or self.size[0] * self.size[1] > MAX_PIXELS or max(objects, default=0) > 254:
            raise DataError(f"{self.source}: frame {frame} of {self.size} with object ids {list(objects)[:9]}")
        if len(objects) > _MOST_OBJECTS:
            raise DataError(f"{self.source}: {len(objects)} objects in frame {frame}, more than {_MOST_OBJECTS}")
        mask = np.zeros(self.size, np.uint8)
        for object_id in objects if self.layered else sorted(objects):
            mask[self._decoded(objects[object_id], frame)] = object_id
        return mask

    def _decoded(self, drawn: Any, frame: int) -> npt.NDArray[np.bool_]:
        height, width = self.size
        if isinstance(drawn, tuple):
            return functools.reduce(np.logical_or, (self._decoded(part, frame) for part in drawn))
        try:
            if isinstance(drawn, BoxedRuns):
                return drawn.draw(height, width)
            if isinstance(drawn, list):
                return self._outlined(drawn)
            value = {"counts": drawn, "size": [height, width]} if isinstance(drawn, str) else drawn
            counts = _run_lengths(value["counts"]) if isinstance(value["counts"], str) else value["counts"]
            runs = np.array(counts, np.int64)
            # Each is compared for itself, too: a sum of numbers that are too large may turn out right.
            inside = (
                runs.ndim == 1 and runs.min() >= 0 and runs.max() <= height * width and runs.sum() == height * width
            )
            if list(value["size"]) != [height, width] or not inside:
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
        inside = []
        for points in outlines:  # pycocotools checks nothing: what is no number, or too long, ends the process
            corners = np.clip(np.array(points, np.float64).reshape(-1, 2), 0, max(self.size))
            length = np.abs(corners - np.roll(corners, 1, 0)).sum()
            if len(corners) < 3 or not length <= _LONGEST_OUTLINE:
                raise ValueError("an outline of fewer than three points, through no place, or without an end")
            inside.append(corners.ravel().tolist())
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
