"""What pictures of masks are made of: tiles, strips of tiles, and galleries of strips, encoded for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovos_ray.evaluate.infer.overlay import overlay

__all__ = ["Gallery", "Strip", "animated", "decode", "side_by_side", "still", "tile"]

_GAP = 4

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """Some frames of one video under one mask source.

    Attributes:
        label: Whose masks.
        score: What they score, in words, or empty.
        image: WebP, frames side by side, as data URI.
        film: Animated WebP as data URI, or empty.
        run_id: The MLflow run that predicted the masks, empty for the truth.
    """

    label: str
    score: str
    image: str
    film: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Gallery:
    """One sequence under several mask sources.

    Attributes:
        sequence: Its name.
        why: Why it was chosen, such as `worst for …`.
        strips: What is compared, the truth first where it is shown.
        words: How to read it, or empty.
    """

    sequence: str
    why: str
    strips: tuple[Strip, ...]
    words: str = ""


def tile(frame: UInt8Array, mask: UInt8Array, width: int) -> Image.Image:
    """Returns a frame (H, W, 3) with its mask (H, W) drawn in, scaled first so that outlines are equally wide."""
    size = (width, round(frame.shape[0] * width / frame.shape[1]))
    small = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    ids = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return Image.fromarray(overlay(np.asarray(small), np.asarray(ids)))


def side_by_side(tiles: Sequence[Image.Image], format: str = "WEBP") -> bytes:
    """Returns tiles in a row as an encoded picture."""
    width = tiles[0].width + _GAP
    strip = Image.new("RGB", (width * len(tiles) - _GAP, max(tile.height for tile in tiles)), "#808080")
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * width, 0))
    buffer = io.BytesIO()
    strip.save(buffer, format, quality=75)
    return buffer.getvalue()


def still(tiles: Sequence[Image.Image]) -> str:
    """Returns tiles in a row as a data URI."""
    return _data_uri(side_by_side(tiles))


def animated(images: Sequence[Image.Image], frame_ms: int) -> str:
    """Returns images one after the other, over and over, as a data URI."""
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": images[1:], "duration": frame_ms, "loop": 0}
    images[0].save(buffer, "WEBP", quality=50, method=2, **options)
    return _data_uri(buffer.getvalue())


def _data_uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def decode(data_uri: str) -> Image.Image:
    """Returns the picture in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))).convert("RGB")
