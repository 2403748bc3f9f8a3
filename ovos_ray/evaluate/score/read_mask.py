"""Masks as they are stored, for scoring.

`data.masks.decode_mask` decides what 255 means; here the protocol does, so the stored values are kept.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from zlib_ng import zlib_ng

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import DEEP_GREY, IMAGE_FORMATS, MAX_PIXELS, eight_bits
from ovos_ray.errors import DataError, EvaluationError

__all__ = ["StoredMask", "read_mask"]

_TOO_LARGE = "no video is that large; write the mask at the size of its frame"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bit depth, colour type, compression, filter method and interlacing of a PNG header.
_PALETTE_8_BIT, _GREY_8_BIT = b"\x08\x03\x00\x00\x00", b"\x08\x00\x00\x00\x00"


@dataclass(frozen=True)
class StoredMask:
    """A mask file: (H, W) uint8 values as stored, and whether they are palette indices (else grey values)."""

    indices: UInt8Array
    palette: bool

    @property
    def two_valued(self) -> bool:
        """Whether 255 is the only value besides 0, as in DAVIS 2016."""
        marked = np.count_nonzero(self.indices == 255)
        return bool(marked) and marked == np.count_nonzero(self.indices)


def read_mask(path: Path) -> StoredMask:
    """Reads a PNG of object indices or grey values.

    Raises:
        EvaluationError: The file is missing, damaged, too large, or has colours instead of indices.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror})") from error
    compressed = _pixel_data(data)
    if compressed is not None and data[24:29] in (_PALETTE_8_BIT, _GREY_8_BIT):
        width, height = struct.unpack(">II", data[16:24])
        _refuse_bomb(path, width, height)
        pixels = _pixels(compressed, height, width)
        if pixels is not None:
            return StoredMask(pixels, palette=data[24:29] == _PALETTE_8_BIT)
    return _read_with_pil(path, data)


def _read_with_pil(path: Path, data: bytes) -> StoredMask:
    """Reads what is no plain PNG of a byte a pixel, or says what is wrong with it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own
            image: Image.Image = Image.open(BytesIO(data), formats=IMAGE_FORMATS)
        _refuse_bomb(path, *image.size)
        image.load()
    except Image.DecompressionBombError as error:
        raise EvaluationError(f"{path}: too large ({error})", _TOO_LARGE) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged or no image ({error})", "write the mask again") from error
    if image.mode == "LA" and len(set(image.getchannel("A").getextrema())) == 1:  # DAVIS 2016, bear/00077.png
        image = image.getchannel("L")
    if image.mode not in ("P", "L", "1", *DEEP_GREY):
        raise EvaluationError(
            f"{path}: a mask of mode {image.mode}, expected a palette PNG or grey values",
            "save object indices with a palette (PIL mode P), not their colours",
        )
    try:
        return StoredMask(eight_bits(image, str(path)), palette=image.mode == "P")
    except DataError as error:
        raise EvaluationError(error.message, error.remedy) from error


def _refuse_bomb(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise EvaluationError(f"{path}: {width} x {height} pixels, more than {MAX_PIXELS:,}", _TOO_LARGE)


def _pixel_data(data: bytes) -> bytes | None:
    """Returns the compressed pixels of a PNG whose chunks are whole and keep their checksums; None of anything else."""
    if data[:8] != _SIGNATURE:
        return None
    parts, position, kind = [], 8, b""
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + size]
        if zlib_ng.crc32(body) != int.from_bytes(data[position + 8 + size : position + 12 + size], "big"):
            return None
        kind = body[:4]
        if kind == b"IDAT":
            parts.append(body[4:])
        position += 12 + size
    return b"".join(parts) if kind == b"IEND" else None


def _pixels(compressed: bytes, height: int, width: int) -> UInt8Array | None:
    """Returns (H, W) pixels of one byte each, or None of damaged ones.

    Most masks are stored without PNG's row filters; then nothing is left to do after decompression. Otherwise OpenCV
    undoes the filters, of the rows that have some: it gets them as a PNG that is not compressed any more.
    """
    try:  # no more than there should be, whatever the file would expand to
        raw = zlib_ng.decompressobj().decompress(compressed, height * (width + 1) + 1)
    except zlib_ng.error:  # type: ignore[misc]  # its stub calls it an instance
        return None
    if len(raw) != height * (width + 1):
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    filtered = rows[:, 0].nonzero()[0]
    if len(filtered) == 0:
        return rows[:, 1:]
    # A filter refers to the row above; the first one has none.
    start, end = max(filtered[0] - 1, 0), filtered[-1] + 1
    header = struct.pack(">II", width, end - start) + _GREY_8_BIT
    stored = zlib_ng.compress(raw[start * (width + 1) : end * (width + 1)], 0)
    png = _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", stored) + _chunk(b"IEND", b"")
    part = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if part is None:
        return None
    pixels = rows[:, 1:].copy()
    pixels[start:end] = part
    return pixels


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib_ng.crc32(body, zlib_ng.crc32(kind)))
