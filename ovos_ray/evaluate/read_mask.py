"""Masks as they are stored, for scoring.

`data.masks.decode_mask` decides what 255 means; here the protocol does, so the stored values are kept.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovos_ray.errors import EvaluationError

__all__ = ["StoredMask", "read_mask"]


@dataclass(frozen=True)
class StoredMask:
    """A mask file: (H, W) uint8 values as stored, and whether they are palette indices (else grey values)."""

    indices: npt.NDArray[np.uint8]
    palette: bool

    @property
    def two_valued(self) -> bool:
        """Whether 255 is the only value besides 0, as in DAVIS 2016."""
        marked = np.count_nonzero(self.indices == 255)
        return bool(marked) and marked == np.count_nonzero(self.indices)


def read_mask(path: Path) -> StoredMask:
    """Reads a PNG of object indices or grey values.

    Raises:
        EvaluationError: The file is missing, damaged, or has colours instead of indices.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror})") from error
    fast = _palette_png(data)
    if fast is not None:
        return StoredMask(fast, palette=True)
    from PIL import Image

    try:
        image = Image.open(BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged or no image ({error})", "write the mask again") from error
    if image.mode not in ("P", "L", "1"):
        raise EvaluationError(
            f"{path}: a mask of mode {image.mode}, expected a palette PNG or 8-bit grey values",
            "save object indices with a palette (PIL mode P), not their colours",
        )
    return StoredMask(np.asarray(image).astype(np.uint8), palette=image.mode == "P")


def _palette_png(data: bytes) -> npt.NDArray[np.uint8] | None:
    """Decodes the usual palette PNG (8 bit, not interlaced, rows unfiltered) in a third of PIL's time.

    Returns:
        The indices, or None for any other file, damaged ones included.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[24:29] != b"\x08\x03\x00\x00\x00":
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    parts, position = [], 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + size]
        if zlib.crc32(body) != int.from_bytes(data[position + 8 + size : position + 12 + size], "big"):
            return None
        if body[:4] == b"IDAT":
            parts.append(body[4:])
        position += 12 + size
    try:
        # Without zlib's header and checksum, which costs as much as the rest; the chunks were checked above.
        raw = zlib.decompress(b"".join(parts)[2:-4], -zlib.MAX_WBITS, height * (width + 1))
    except zlib.error:
        return None
    if len(raw) != height * (width + 1):
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]
