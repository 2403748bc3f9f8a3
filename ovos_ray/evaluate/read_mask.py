"""Masks as they are stored, for scoring.

`data.masks.decode_mask` decides what 255 means; here the protocol does, so the stored values are kept.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.errors import EvaluationError

__all__ = ["StoredMask", "read_mask"]

# Bit depth, colour type, compression, filter method and interlacing of a PNG header.
_PALETTE_8_BIT, _GREY_8_BIT = b"\x08\x03\x00\x00\x00", b"\x08\x00\x00\x00\x00"


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
    compressed = _pixel_data(data)
    if compressed is not None and data[24:29] == _PALETTE_8_BIT:
        indices = _unfiltered(compressed, int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
        if indices is not None:
            return StoredMask(indices, palette=True)
    if compressed is not None and data[24:29] == _GREY_8_BIT:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if grey is not None and grey.ndim == 2 and grey.dtype == np.uint8:
            return StoredMask(np.asarray(grey), palette=False)
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


def _pixel_data(data: bytes) -> bytes | None:
    """Returns the compressed pixels of a PNG whose chunks are whole and keep their checksums; None of anything else."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    parts, position, kind = [], 8, b""
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + size]
        if zlib.crc32(body) != int.from_bytes(data[position + 8 + size : position + 12 + size], "big"):
            return None
        kind = body[:4]
        if kind == b"IDAT":
            parts.append(body[4:])
        position += 12 + size
    return b"".join(parts) if kind == b"IEND" else None


def _unfiltered(compressed: bytes, height: int, width: int) -> npt.NDArray[np.uint8] | None:
    """Returns 8-bit indices whose rows are stored unfiltered, as is usual, in a third of PIL's time; else None."""
    try:
        # Without zlib's header and checksum, which costs as much as the rest; the chunks were checked before.
        raw = zlib.decompress(compressed[2:-4], -zlib.MAX_WBITS, height * (width + 1))
    except zlib.error:
        return None
    if len(raw) != height * (width + 1):
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]
