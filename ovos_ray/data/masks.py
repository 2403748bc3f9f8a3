"""Images and object masks as arrays and as bytes.

A mask is an (H, W) uint8 array of object ids: 0 is background, 1 … 254 are objects. Files hold it as palette indices
(DAVIS 2017, YouTube-VOS), as grey values, or as the two values 0 and 255 of a single object (DAVIS 2016).
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ovos_ray.arrays import UInt8Array
from ovos_ray.errors import DataError

__all__ = [
    "DAVIS_PALETTE",
    "DEEP_GREY",
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "ImageSource",
    "ObjectBox",
    "boxes",
    "decode_binary_mask",
    "decode_image",
    "decode_mask",
    "eight_bits",
    "encode_jpeg",
    "encode_mask",
    "image_size",
    "jpeg_size",
    "read_palette",
    "require_upright",
    "without_metadata",
]

ImageSource: TypeAlias = bytes | str | os.PathLike[str]

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""What PIL may take a file for, whatever it is called. Of the forty formats that it knows, one runs Ghostscript."""
MAX_PIXELS = 2**26
"""Larger images are refused before they are decoded: twice what 8K video has."""
DEEP_GREY = ("I", "I;16", "I;16B")
"""PIL's modes of grey values of more than 8 bits: some programs save all masks so."""
_MAX_IDS = 64
_ORIENTATION = 0x0112
_METADATA = frozenset({0xE1, 0xED})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MASK_REMEDY = (
    "save masks as PNG with one object id per pixel (palette or grey, 0 = background), or as 0 and 255 for a single "
    "object, without smoothing, and never as JPEG"
)


@dataclass(frozen=True)
class ObjectBox:
    """Where one object is in a mask: pixels [y0, y1) × [x0, x1), and how many of them are its own (`area`)."""

    object_id: int
    x0: int
    y0: int
    x1: int
    y1: int
    area: int


def _davis_palette() -> bytes:
    """The 256 colours of PASCAL VOC and DAVIS: the bits of an index are dealt to R, G, B, high bits first."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for bit in range(8):
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours.tobytes()


DAVIS_PALETTE: bytes = _davis_palette()
"""256 × RGB as bytes, as `PIL.Image.putpalette` takes it."""


def _named(source: ImageSource, name: str | None) -> str:
    return name or ("image in memory" if isinstance(source, bytes) else os.fspath(source))


def _open(source: ImageSource, name: str, *, any_depth: bool = False) -> Image.Image:
    """Opens an image, whose pixels are not decoded yet.

    Raises:
        DataError: It is missing, no image, too large, or, unless `any_depth`, of more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own
            image: Image.Image = Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS
            )
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image ({', '.join(IMAGE_FORMATS)})", "replace or remove the file") from error
    except (OSError, ValueError, SyntaxError, OverflowError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable image ({error})", "replace or remove the file") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{name}: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}", "scale it down")
    if image.mode[0] in "IF" and not any_depth:
        raise DataError(
            f"{name}: image of mode {image.mode}, whose values do not fit 8 bits",
            "save it as PNG with 8 bits a channel",
        )
    return image


def _load(image: Image.Image, name: str) -> None:
    """Decodes all pixels; PIL reports most damage as OSError, some as others."""
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError, MemoryError) as error:
        raise DataError(f"{name}: damaged image ({error})", "replace or remove the file") from error


def image_size(source: ImageSource) -> tuple[int, int]:
    """Returns (height, width) from the file's header."""
    with _open(source, _named(source, None), any_depth=True) as image:
        return image.height, image.width


def require_upright(source: ImageSource, name: str | None = None) -> None:
    """Makes sure that an image is shown as its pixels lie, so that a mask's pixels are those of the image.

    Raises:
        DataError: Its EXIF orientation says that viewers turn or mirror it.
    """
    name = _named(source, name)
    with _open(source, name) as image:
        try:
            orientation = image.getexif().get(_ORIENTATION, 1)
        except Exception:  # what a camera wrote there in error says nothing about the pixels; PIL fails in many ways
            return
    if orientation not in (0, 1):
        raise DataError(
            f"{name}: viewers turn or mirror this image (EXIF orientation {orientation}), which its mask may not know",
            "turn the pixels upright: mogrify -auto-orient FILE; or remove the tag, if the mask fits the stored pixels",
        )


def without_metadata(jpeg: bytes) -> bytes:
    """Returns a JPEG without EXIF, XMP and IPTC (APP1 and APP13: places, people, devices); its pixels stay as stored.

    What is no sequence of JPEG segments is returned as it is.
    """
    parts, position = [jpeg[:2]], 2
    for marker, start, end in _segments(jpeg):
        if marker not in _METADATA:
            parts.append(jpeg[start:end])
        position = end
    return b"".join(parts) + jpeg[position:] if jpeg[:2] == b"\xff\xd8" else jpeg


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of each segment before the pixels."""
    position = 2
    while jpeg[position : position + 1] == b"\xff" and position + 4 <= len(jpeg) and jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        yield jpeg[position + 1], position, end
        position = end


def jpeg_size(source: ImageSource, name: str | None = None) -> tuple[int, int] | None:
    """Returns (height, width) of a complete colour or grey JPEG, None of any other image.

    The whole entropy-coded stream is read and decoded at an eighth of its size, so a truncated file is found, at a
    fraction of the cost of a full decode.

    Raises:
        DataError: The file is no image, or damaged.
    """
    name = _named(source, name)
    with _open(source, name) as image:
        size = (image.height, image.width)
        if image.format != "JPEG" or image.mode not in ("RGB", "L"):
            return None
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        _load(image, name)
        return size


def decode_image(source: ImageSource, name: str | None = None) -> UInt8Array:
    """Returns an image file, or its bytes, as (H, W, 3) uint8 RGB. Orientation tags are not applied.

    Raises:
        DataError: The file is no image, or damaged.
    """
    name = _named(source, name)
    if isinstance(source, bytes) and _is_plain_jpeg(source) and (pixels := _decode_jpeg(source)) is not None:
        return pixels
    with _open(source, name) as image:
        _load(image, name)
        return np.array(image.convert("RGB"))


def _is_plain_jpeg(jpeg: bytes) -> bool:
    """Whether the header announces a grey or colour JPEG that is not too large, in a tenth of the time PIL takes."""
    if jpeg[:3] != b"\xff\xd8\xff":
        return False
    starts = [start for marker, start, _ in _segments(jpeg) if marker in _FRAME_HEADERS]
    if len(starts) != 1:
        return False
    header = jpeg[starts[0] + 4 : starts[0] + 10]
    size = int.from_bytes(header[1:3], "big") * int.from_bytes(header[3:5], "big")
    return len(header) == 6 and header[0] == 8 and 0 < size <= MAX_PIXELS and header[5] in (1, 3)


def _decode_jpeg(jpeg: bytes) -> UInt8Array | None:
    """The pixels that PIL gives, in a third of the time; None of a file that does not end as a JPEG does.

    OpenCV fills up what is missing at the end with grey, and says so on the terminal only.
    """
    if not jpeg.endswith(b"\xff\xd9"):
        return None
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags)
    except cv2.error:
        return None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def encode_jpeg(image: UInt8Array, quality: int = 95) -> bytes:
    """Returns (H, W, 3) uint8 RGB as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def eight_bits(image: Image.Image, name: str) -> UInt8Array:
    """Returns the ids of a loaded mask of one channel, however many bits hold each, as (H, W) uint8.

    Raises:
        DataError: An id is above 255.
    """
    values = np.asarray(image)
    if image.mode in DEEP_GREY and (largest := int(values.max())) > 255:
        raise DataError(
            f"{name}: mask of mode {image.mode} with the id {largest}, ids go up to 254",
            "number the objects from 1 on in every mask of the video; or, if it shows one object, save it as 0 and 255",
        )
    return values.astype(np.uint8)


def decode_mask(source: ImageSource, name: str | None = None, *, void: bool = False) -> UInt8Array:
    """Returns a mask file, or its bytes, as (H, W) uint8 object ids.

    A mask with no values but 0 and 255 shows one object, whose id becomes 1. In a palette file that holds other ids
    too, 255 is void ("do not score") and becomes background, as the DAVIS toolkit does; with `void`, in any file.

    Raises:
        DataError: The file is damaged, has colours instead of ids, an id above 255, or looks smoothed (anti-aliased, or
            from a JPEG).
    """
    name = _named(source, name)
    with _open(source, name, any_depth=True) as image:
        if image.mode not in ("P", "L", "1", "LA", *DEEP_GREY):
            raise DataError(f"{name}: mask of mode {image.mode}, expected palette or grey", _MASK_REMEDY)
        _load(image, name)
        if image.mode == "LA":
            if len(set(image.getchannel("A").getextrema())) > 1:
                raise DataError(f"{name}: mask of mode LA that is transparent in places", _MASK_REMEDY)
            image = image.getchannel("L")  # DAVIS 2016 has one such mask, opaque all over: bear/00077.png
        mask = eight_bits(image, name)
    values = np.flatnonzero(cv2.calcHist([mask], [0], None, [256], [0, 256]))  # ten times as fast as np.unique
    ids = values[(values > 0) & (values < 255)]
    if values[-1] == 255:
        if ids.size == 0 and not void:
            return np.where(mask == 255, np.uint8(1), np.uint8(0))
        mask[mask == 255] = 0
    smoothed = image.mode != "P" and values[-1] == 255 and not void
    if smoothed or ids.size > _MAX_IDS:
        found = ", ".join(map(str, values[:8])) + (" …" if values.size > 8 else "")
        raise DataError(
            f"{name}: mask with {values.size} different values ({found}), expected object ids, or 0 and 255; "
            "it looks smoothed or compressed",
            _MASK_REMEDY,
        )
    return mask


def decode_binary_mask(source: ImageSource) -> UInt8Array:
    """Returns a saliency or alpha mask as (H, W) uint8 of 0 and 1: grey value above one half (static images only)."""
    name = _named(source, None)
    with _open(source, name) as image:
        _load(image, name)
        grey: UInt8Array = np.array(image.convert("L"))
        return np.where(grey > 127, np.uint8(1), np.uint8(0))


def encode_mask(indices: UInt8Array, palette: bytes = DAVIS_PALETTE) -> bytes:
    """Returns (H, W) uint8 object ids as the bytes of a palette PNG.

    Raises:
        DataError: `indices` is not a two-dimensional uint8 array.
    """
    if indices.ndim != 2 or indices.dtype != np.uint8:
        raise DataError(f"mask of shape {indices.shape} and type {indices.dtype}, expected (H, W) uint8")
    image = Image.fromarray(indices)
    image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def boxes(mask: UInt8Array) -> tuple[ObjectBox, ...]:
    """Returns the box and area of every object of an (H, W) mask, by ascending id."""
    found = []
    for object_id in np.unique(mask[mask > 0]):
        own = mask == object_id
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        x0, x1, y0, y1 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        found.append(ObjectBox(int(object_id), int(x0), int(y0), int(x1), int(y1), int(own.sum())))
    return tuple(found)


def read_palette(source: ImageSource) -> bytes:
    """Returns the 256 colours of a palette PNG, the DAVIS palette for any other image."""
    name = _named(source, None)
    with _open(source, name, any_depth=True) as image:
        if image.mode == "P":
            _load(image, name)
        palette = image.getpalette() if image.mode == "P" else None
    return bytes(palette).ljust(768, b"\0") if palette else DAVIS_PALETTE
