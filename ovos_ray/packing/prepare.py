"""Frames on their way into shards: read, checked, scaled where asked, with labels as palette PNGs of object ids."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.folders.video import Video, read_video_file
from ovos_ray.data.masks import (
    ObjectBox,
    boxes,
    decode_image,
    encode_jpeg,
    encode_mask,
    jpeg_size,
    require_upright,
    without_metadata,
)
from ovos_ray.data.shards.shard_file import row_checksum
from ovos_ray.errors import DataError
from ovos_ray.packing.label_choice import LabelFrame, Labels, chosen_frames

__all__ = ["PackedRow", "SourceFrame", "by_video", "frames_of", "map_in_order", "prepare"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_Image: TypeAlias = UInt8Array


@dataclass(frozen=True)
class SourceFrame:
    """A frame to be stored: a file, or the pixels of one from a video file."""

    video: Video
    frame: int
    name: str
    pixels: _Image | None
    labelled: bool
    shortest_side: int | None


@dataclass(frozen=True)
class PackedRow:
    """A frame ready to be stored, or what is wrong with it."""

    frame: int
    problem: str | None = None
    name: str = ""
    jpeg: bytes = b""
    label: bytes | None = None
    height: int = 0
    width: int = 0
    objects: tuple[ObjectBox, ...] = ()
    reencoded: bool = False
    checksum: str = ""


def frames_of(
    videos: Iterable[Video], labels: Labels, label_frame: LabelFrame, shortest_side: int | None
) -> Iterator[SourceFrame | tuple[Video, str]]:
    """Yields all frames in order; where a video has no usable label, the video with the reason."""
    for video in videos:
        try:
            labelled = chosen_frames(video, labels, label_frame)
            found = 0
            for index, (name, pixels) in enumerate(_contents(video)):
                found += 1
                yield SourceFrame(video, index, name, pixels, index in labelled, shortest_side)
            if beyond := sorted(index for index in labelled if index >= found):
                yield video, f"{video.masks[beyond[0]]}: mask of frame {beyond[0]}, but {video.name!r} has {found}"
        except DataError as error:
            yield video, error.listed


def _contents(video: Video) -> Iterator[tuple[str, _Image | None]]:
    if video.file is None:
        yield from ((path.stem, None) for path in video.frames)
    else:
        yield from ((f"{index:05d}", image) for index, image in enumerate(read_video_file(video.file)))


def prepare(item: SourceFrame | tuple[Video, str]) -> tuple[Video, PackedRow]:
    """Reads, checks and, where needed, scales one frame and its label."""
    if isinstance(item, tuple):
        return item[0], PackedRow(-1, problem=item[1])
    try:
        return item.video, _row(item)
    except (DataError, OSError) as error:
        problem = error.listed if isinstance(error, DataError) else str(error)
        return item.video, PackedRow(item.frame, problem=problem)


def _row(item: SourceFrame) -> PackedRow:
    video, pixels = item.video, item.pixels
    jpeg, size = b"", None
    if pixels is None:
        path = video.frames[item.frame]
        jpeg = path.read_bytes()
        require_upright(jpeg, str(path))
        jpeg = without_metadata(jpeg)
        size = jpeg_size(jpeg, str(path))
        if size is None or _scaled(size, item.shortest_side) != size:
            pixels = decode_image(jpeg, str(path))
    if pixels is not None:
        height, width = _scaled((pixels.shape[0], pixels.shape[1]), item.shortest_side)
        if (height, width) != pixels.shape[:2]:
            pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
        jpeg, size = encode_jpeg(pixels), (height, width)
    assert size is not None
    label: bytes | None = None
    objects: tuple[ObjectBox, ...] = ()
    if item.labelled:
        mask = video.mask(item.frame)
        if mask.shape != size:
            mask = np.array(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))
        label, objects = encode_mask(mask), boxes(mask)
    checksum = row_checksum(video.name, item.frame, item.name, jpeg, label)
    return PackedRow(item.frame, None, item.name, jpeg, label, size[0], size[1], objects, pixels is not None, checksum)


def _scaled(size: tuple[int, int], shortest_side: int | None) -> tuple[int, int]:
    """The size (height, width) with the shorter side at most `shortest_side`, rounded down as in train_480p."""
    if shortest_side is None or min(size) <= shortest_side:
        return size
    ratio = shortest_side / min(size)
    return int(size[0] * ratio), int(size[1] * ratio)


def map_in_order(
    pool: ThreadPoolExecutor, function: Callable[[_T], _R], items: Iterable[_T], ahead: int
) -> Iterator[_R]:
    """Maps in threads, in order, with at most `ahead` items under way: memory stays bounded."""
    waiting: collections.deque[Future[_R]] = collections.deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def by_video(rows: Iterable[tuple[Video, PackedRow]]) -> Iterator[tuple[Video, Iterator[PackedRow]]]:
    """Yields each video with its rows, which must be consumed before the next."""
    for _, group in itertools.groupby(rows, key=lambda pair: pair[0].name):
        pairs = iter(group)
        video, first = next(pairs)
        yield video, itertools.chain([first], (row for _, row in pairs))
