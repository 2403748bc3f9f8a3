"""The videos of a folder, labelled or not: their frames in any order, and the masks that are written for them.

Masks go where `pack --layout folder` reads them: ROOT/masks/VIDEO/FRAME.png. A note beside them, in
ROOT/masks/.ovos-ray/labels/, holds the SHA-256 of each that was written here: what others made is never replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.folders.base import has_images
from ovos_ray.data.folders.plain_folder import PlainFolder
from ovos_ray.data.folders.video import VIDEO_SUFFIXES, Video
from ovos_ray.data.masks import decode_image, encode_jpeg, encode_mask
from ovos_ray.errors import DataError, OvosError
from ovos_ray.evaluate.infer.directions import FrameStack
from ovos_ray.io import atomic_path, read_json, write_json
from ovos_ray.label.suggest import Look, look_at, suggested_frame
from ovos_ray.paths import MARKER, below, checked_name

__all__ = ["Labels", "OpenVideo", "find_videos"]


def find_videos(path: Path) -> tuple[PlainFolder, list[str]]:
    """Returns the folder that holds the videos, and the names of those to label.

    Args:
        path: A folder of videos, or one video: a file, or a folder of frames.

    Raises:
        DataError: There is no video.
    """
    path = path.absolute()
    if path.is_dir():
        folder = PlainFolder(path, PlainFolder.bare("folder"))
        if folder.places_of_videos:
            return folder, list(folder.places_of_videos)
    if path.is_dir() and has_images(path):
        return PlainFolder(path.parent, PlainFolder.bare("folder")), [path.name]
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return PlainFolder(path.parent, PlainFolder.bare("folder")), [path.stem]
    what = "no such file or folder" if not path.exists() else "neither a video nor a folder of videos"
    raise DataError(f"{path}: {what}", "give a video file, a folder of frames, or a folder that holds some of these")


class Labels:
    """The masks of one video on disk."""

    def __init__(self, folder: PlainFolder, name: str) -> None:
        self.folder, self.name = folder, checked_name(name, "video", folder.root)
        self._note = below(folder.root / "masks", MARKER, "labels", f"{name}.json")

    def video(self) -> Video:
        """The video with the masks that it has now."""
        return self.folder.labelled(self.name)

    def foreign(self) -> Path | None:
        """A mask of the video that was not written here, or was changed since; None where there is none."""
        known = self._known()
        return next((path for path in self.video().masks.values() if _digest(path) not in known), None)

    def save(self, frame_name: str, mask: UInt8Array) -> Path:
        """Writes the mask of a frame, (H, W) uint8 object ids, in one piece.

        Raises:
            DataError: It shows no object, or the video has a mask that was not written here.
        """
        if not mask.any():
            raise DataError("the mask shows no object", "draw one, or remove the label")
        self._require_own()
        target = below(self.folder.root, "masks", self.name, f"{checked_name(frame_name, 'frame', self.name)}.png")
        encoded = encode_mask(mask)
        known = self._known()
        # Noted first: a kill in between leaves a mask that is known as ours, the old one or the new one.
        write_json(self._note, {"sha256": sorted(known | {hashlib.sha256(encoded).hexdigest()})})
        with atomic_path(target) as temporary:
            temporary.write_bytes(encoded)
        return target

    def remove(self, index: int) -> None:
        """Removes the mask of a frame that was written here.

        Raises:
            DataError: The video has a mask that was not written here.
        """
        self._require_own()
        if (path := self.video().masks.get(index)) is not None:
            path.unlink()

    def _require_own(self) -> None:
        if (other := self.foreign()) is not None:
            raise DataError(f"{other} was not written by this page, or was changed since", "move it away to label anew")

    def _known(self) -> set[str]:
        try:
            return {str(digest) for digest in read_json(self._note)["sha256"]} if self._note.is_file() else set()
        except (ValueError, KeyError, TypeError, RecursionError):  # damaged: then nothing counts as ours
            return set()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class OpenVideo:
    """A video whose frames are read once, in a thread, and at hand in any order afterwards.

    Attributes:
        video: The video.
        scratch: Where frames of a video file are kept meanwhile, as JPEG, in a file without a name.
        looks: What is compared of the frames read so far.
        done: Whether all were read.
        problem: Why they cannot be, or None.
        suggestion: Index of the frame to label, once all were read.
    """

    video: Video
    scratch: Path
    looks: list[Look] = field(default_factory=list)
    done: bool = False
    problem: str | None = None
    suggestion: int | None = None

    def __post_init__(self) -> None:
        """Starts to read."""
        self._stack = FrameStack(self.scratch) if self.video.file is not None else None
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="read-video", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for image in self.video.images():
                if self._closed:
                    return
                if self._stack is not None:
                    self._stack.put(encode_jpeg(image))
                self.looks.append(look_at(image))
            self.suggestion = suggested_frame(self.looks) if self.looks else None
        except (OvosError, OSError) as error:
            self.problem = str(error)
        self.done = True

    @property
    def num_frames(self) -> int:
        """How many frames there are; of a video file, how many are known by now."""
        return len(self.looks) if self.video.file is not None else len(self.video.frames)

    def frame_name(self, index: int) -> str:
        """The name that a mask of the frame has."""
        return f"{index:05d}" if self.video.file is not None else self.video.frames[index].stem

    def jpeg(self, index: int) -> bytes:
        """A frame for the page.

        Raises:
            DataError: It cannot be read.
            IndexError: There is none of this index.
        """
        if not 0 <= index < self.num_frames:
            raise IndexError(index)
        return self._stack.take(index) if self._stack is not None else encode_jpeg(self.image(index))

    def image(self, index: int) -> UInt8Array:
        """A frame, (H, W, 3) uint8 RGB; those of video files have been JPEGs of quality 95, as in packed shards."""
        if self._stack is not None:
            return decode_image(self._stack.take(index), self.video.name)
        return next(replace(self.video, masks={}).images([index]))

    def close(self) -> None:
        """Stops reading, and gives the disk back."""
        self._closed = True
        self._thread.join()
        if self._stack is not None:
            with contextlib.suppress(OSError):
                self._stack.close()
