"""One video of a dataset folder: its frames, its masks, and which masks inference is given."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import MAX_PIXELS, decode_binary_mask, decode_image, decode_mask, image_size, require_upright
from ovos_ray.errors import DataError, MissingExtraError

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Video", "read_video_file"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})

# FFmpeg reads hundreds of formats, whatever a file is called: among them playlists, which open other files and
# addresses, and decoders that few have looked at. What cameras, phones and video tools write is all that is read.
_FORMATS = ("avi", "matroska", "mov")
_CODECS = (
    "h264", "hevc", "vvc", "libdav1d", "libaom-av1", "av1", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg4", "msmpeg4v3",
    "mpeg1video", "mpeg2video", "h263", "mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "png", "rawvideo",
)  # fmt: skip
_MAX_PIXELS = MAX_PIXELS // 2  # 8K; decoders hold several frames
_DECODED = {"codec_whitelist": ",".join(_CODECS), "max_pixels": str(_MAX_PIXELS)}  # whatever the container says
_ALLOWED = {"format_whitelist": ",".join(_FORMATS), "codec_whitelist": ",".join(_CODECS), "protocol_whitelist": "file"}


def read_video_file(path: Path) -> Iterator[UInt8Array]:
    """Yields the frames of a video file as (H, W, 3) uint8 RGB, upright as players show them.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: The file is missing, damaged or cut short; it holds no video, or too large frames; its format or
            codec is not read; or its frames are to be turned by other than a right angle.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", f"reading {path.name}") from error
    try:
        # Given whole: "http:clip.mp4" is a file in this folder, not an address.
        with av.open(str(path.absolute()), container_options=_ALLOWED) as container:
            if not container.streams.video:
                raise DataError(f"{path}: no video stream")
            stream = container.streams.video[0]
            codec = "an unknown codec" if stream.codec_context is None else stream.codec_context.name
            if codec not in _CODECS:
                raise DataError(f"{path}: video in {codec}, which is not read", _CONVERT_REMEDY)
            if stream.width * stream.height > _MAX_PIXELS:
                raise DataError(f"{path}: frames of more than {_MAX_PIXELS:,} pixels", "scale it down")
            # By default FFmpeg makes up what it cannot decode, and says so on the terminal only.
            stream.codec_context.options = {"err_detect": "explode", **_DECODED}
            count = 0
            end_s = 0.0
            for count, frame in enumerate(container.decode(stream), 1):
                if frame.is_corrupt:
                    raise DataError(f"{path}: frame {count - 1} is damaged", _VIDEO_REMEDY)
                end_s = frame.time + float(1 / (stream.average_rate or 1)) if frame.time is not None else math.inf
                yield _upright(frame, path)
            # Files whose end is missing are otherwise decoded without a word. Durations are rounded, hence the leeway.
            if count < 0.95 * stream.frames - 1 or end_s < 0.95 * _declared_s(stream) - 0.1:
                raise DataError(
                    f"{path}: ends after {count} frames ({end_s:.1f} s), but announces "
                    f"{stream.frames or 'more'} ({_declared_s(stream):.1f} s); it is cut short",
                    "copy or download it again",
                )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be decoded as video ({error})", _VIDEO_REMEDY) from error


_VIDEO_REMEDY = "copy it again, convert it, or extract its frames"
_CONVERT_REMEDY = "convert it, if you know whose it is: ffmpeg -i FILE clip.mp4"


def _upright(frame: Any, path: Path) -> UInt8Array:
    turns, rest = divmod(getattr(frame, "rotation", 0), 90)
    if rest:
        raise DataError(
            f"{path}: frames are to be shown turned by {frame.rotation} degrees, no multiple of 90",
            f"turn them upright: ffmpeg -i {path.name} upright.mp4",
        )
    image: UInt8Array = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _declared_s(stream: Any) -> float:
    """How long a video stream says it is, in seconds; 0 if it says nothing."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    written = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
    return (
        0.0
        if written is None
        else sum(float(part) * unit for part, unit in zip(written.groups(), (3600, 60, 1), strict=True))
    )


@dataclass(frozen=True)
class Video:
    """A video whose files are read only when asked for.

    Attributes:
        name: Unique within its split; may contain slashes.
        frames: Image files in temporal order; empty where `file` is given.
        file: A video file, or None.
        masks: Mask files by the index of the frame they belong to, ascending.
        masks_hold: `ids` (see `decode_mask`), `one object` (any id is the object), `saliency` (cut at one half), or
            `ids and void` (255 is void even where no object shows).
        given: Which masks inference starts from: the `first` that shows an object; for objects that appear later, also
            the mask in which each is new (`appearances`, YouTube-VOS); or `all`, the later ones as corrections.
        saved_names: Frame names that a prediction must contain; None stands for all.
        drawn: Draws the mask of a frame, where `masks` are no images of object ids.
    """

    name: str
    frames: tuple[Path, ...]
    file: Path | None
    masks: dict[int, Path]
    masks_hold: Literal["ids", "one object", "saliency", "ids and void"] = "ids"
    given: Literal["first", "appearances", "all"] = "first"
    saved_names: frozenset[str] | None = None
    drawn: Callable[[int], UInt8Array] | None = None

    @property
    def location(self) -> Path:
        """The folder of the frames, or the video file; for messages."""
        return self.file if self.file is not None else self.frames[0].parent

    @functools.cached_property
    def num_frames(self) -> int:
        """Number of frames; a video file is decoded once to count them."""
        return len(self.frames) if self.file is None else sum(1 for _ in read_video_file(self.file))

    @property
    def frame_names(self) -> tuple[str, ...]:
        """File names without extension; frames of a video file are numbered from 00000."""
        if self.file is None:
            return tuple(path.stem for path in self.frames)
        return tuple(f"{index:05d}" for index in range(self.num_frames))

    def images(self, order: Iterable[int] | None = None) -> Iterator[UInt8Array]:
        """Yields the frames as (H, W, 3) uint8 RGB: all of them, or those of a folder in an order of indices."""
        if self.file is not None:
            yield from read_video_file(self.file)
        for path in self.frames if order is None else (self.frames[index] for index in order):
            yield decode_image(_read(path), str(path))

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first frame."""
        if self.file is None:
            return image_size(self.frames[0])
        for image in itertools.islice(read_video_file(self.file), 1):
            return image.shape[0], image.shape[1]
        raise DataError(f"{self.file}: the video has no frames")

    def mask(self, index: int) -> UInt8Array:
        """Returns the mask of a frame as (H, W) uint8 object ids.

        Raises:
            DataError: The frame has no mask, or one that is damaged or of another size than the frame.
        """
        if index not in self.masks:
            some = ", ".join(map(str, itertools.islice(self.masks, 5))) or "none"
            raise DataError(f"video {self.name!r}: frame {index} has no mask (masks at {some})")
        path = self.masks[index]
        if self.drawn is not None:
            mask = self.drawn(index)
        elif self.masks_hold == "saliency":
            mask = decode_binary_mask(path)
        else:
            mask = decode_mask(path, void=self.masks_hold == "ids and void")
        size = self.size if self.file is not None else image_size(self.frames[index])
        if self.file is None:
            require_upright(self.frames[index])
        if mask.shape != size:
            frame = self.file if self.file is not None else self.frames[index]
            raise DataError(
                f"{path}: mask of {mask.shape[1]} x {mask.shape[0]} pixels for a frame of {size[1]} x {size[0]} "
                f"({frame})",
                "make masks from frames of the stored size; scale masks with nearest neighbour only",
            )
        return np.minimum(mask, 1) if self.masks_hold == "one object" else mask

    @functools.cached_property
    def first_label(self) -> int:
        """Index of the first frame whose mask shows an object.

        Raises:
            DataError: There is no mask, or none shows an object.
        """
        for index in self.masks:
            if self.mask(index).any():
                return index
        if not self.masks:
            raise DataError(
                f"video {self.name!r} ({self.location}) has no mask", "label one frame, or exclude the video"
            )
        raise DataError(
            f"video {self.name!r}: no object in any of its masks (first: {next(iter(self.masks.values()))})",
            "label a frame that shows an object, or exclude the video",
        )

    def references(self) -> dict[int, UInt8Array]:
        """Returns the masks that inference is given, by frame index: (H, W) uint8 object ids.

        With `given="appearances"` every mask holds only the objects that no earlier mask showed.

        Raises:
            DataError: There is no mask, or none shows an object.
        """
        start = self.first_label
        found = {start: self.mask(start)}
        if self.given == "first":
            return found
        if self.given == "all":
            return found | {index: self.mask(index) for index in self.masks if index > start}
        seen = set(np.unique(found[start]).tolist())
        for index in self.masks:
            if index <= start:
                continue
            mask = self.mask(index)
            new = set(np.unique(mask).tolist()) - seen
            if new:
                found[index] = np.where(np.isin(mask, list(new)), mask, np.uint8(0))
                seen |= new
        return found

    def is_saved(self, frame_name: str) -> bool:
        """Whether a prediction must contain this frame."""
        return self.saved_names is None or frame_name in self.saved_names


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
