"""Overlays: masks drawn over their frames, as pictures, side by side, and as a video."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import DAVIS_PALETTE
from ovos_ray.errors import MissingExtraError

__all__ = ["OverlayWriter", "grid", "overlay", "tile"]

_GAP = 4


def overlay(image: UInt8Array, mask: UInt8Array, palette: bytes = DAVIS_PALETTE) -> UInt8Array:
    """Returns a frame with its objects tinted and outlined.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 object ids.
        palette: 256 RGB colours.
    """
    colours = np.frombuffer(palette, np.uint8).reshape(256, 3)
    picture, inside = image.copy(), mask > 0
    picture[inside] = (0.5 * image[inside] + 0.5 * colours[mask[inside]]).astype(np.uint8)
    edges = (cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0) & inside
    picture[edges] = colours[mask[edges]]
    return picture


def tile(frame: UInt8Array, mask: UInt8Array, width: int) -> Image.Image:
    """Returns a frame (H, W, 3) with its mask (H, W) drawn in, scaled first so that outlines are equally wide."""
    size = (width, round(frame.shape[0] * width / frame.shape[1]))
    small = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    ids = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return Image.fromarray(overlay(np.asarray(small), np.asarray(ids)))


def grid(rows: Sequence[Sequence[Image.Image]], format: str) -> bytes:
    """Returns tiles of one size in rows as an encoded picture."""
    width, height = rows[0][0].width + _GAP, rows[0][0].height + _GAP
    sheet = Image.new("RGB", (width * len(rows[0]) - _GAP, height * len(rows) - _GAP), "#808080")
    for row, tiles in enumerate(rows):
        for place, picture in enumerate(tiles):
            sheet.paste(picture, (place * width, row * height))
    buffer = io.BytesIO()
    sheet.save(buffer, format, quality=75)
    return buffer.getvalue()


class OverlayWriter:
    """Writes an MP4 that appears when it is complete.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: Path, frames_per_second: float = 24) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtraError("av", "video", "writing an overlay video") from error
        self._av: Any = av
        self._path = path
        self._temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._temporary), "w")
        self._rate = Fraction(frames_per_second).limit_denominator(1001)
        self._stream: Any = None

    def write(self, image: UInt8Array, mask: UInt8Array, palette: bytes = DAVIS_PALETTE) -> None:
        """Adds a frame with its mask drawn in."""
        self.add(overlay(image, mask, palette))

    def add(self, picture: UInt8Array) -> None:
        """Adds a picture, (H, W, 3) uint8 RGB; sizes are cut to even numbers, as the codec wants them."""
        height, width = (side - side % 2 for side in picture.shape[:2])
        if self._stream is None:
            codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
            self._stream = self._container.add_stream(codec, rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self, *, keep: bool = True) -> None:
        """Finishes the file, or throws it away."""
        if keep and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if keep and self._stream is not None:
            os.replace(self._temporary, self._path)
        self._temporary.unlink(missing_ok=True)
