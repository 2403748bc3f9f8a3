"""Masks in a bucket: one file a video, `VIDEO.zip` with VIDEO/FRAME.png, where PNG by PNG would take a request each."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import decode_mask
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.errors import DataError
from ovos_ray.storage import Storage

__all__ = ["MaskArchives", "send_masks"]

_MOST_BYTES = 2**28
"""Of an archive, and of what it unpacks to: far above what the masks of a long video take."""


def send_masks(folder: Path, video: str, bucket: Storage) -> None:
    """Writes a video's masks, `folder`/VIDEO/FRAME.png, into a bucket.

    Raises:
        StorageError: The bucket cannot be reached.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted((folder / video).glob("*.png")):
            file.write(path, f"{video}/{path.name}")
    bucket.write(archive.getvalue(), f"{video}.zip")


class MaskArchives:
    """The archives of a folder in a bucket. One is fetched, as a whole, when its video is first asked for, and kept.

    Args:
        bucket: The folder.
    """

    def __init__(self, bucket: Storage) -> None:
        self._bucket = bucket
        self._opened: dict[str, zipfile.ZipFile] = {}

    def mask(self, video: str, frame: str) -> UInt8Array:
        """Returns the mask of a frame, (H, W) object ids.

        Raises:
            DataError: There is no archive of this video, or it is damaged or lacks the frame.
            StorageError: The bucket cannot be reached.
        """
        if video not in self._opened:
            self._opened[video] = self._open(video)
        member = f"{video}/{frame}.png"
        location = self._bucket.location(f"{video}.zip")
        try:
            content = self._opened[video].read(member)
        except Exception as error:  # zipfile's own are many, and KeyError where there is no such member
            raise DataError(f"{location}: {member} cannot be read ({error})") from error
        return decode_mask(content, f"{location}/{frame}.png")

    def _open(self, video: str) -> zipfile.ZipFile:
        name = f"{video}.zip"
        location = self._bucket.location(name)
        try:
            file = RangedFile(self._bucket.fs, self._bucket.path(name), location)
            size = file.size
            if size <= _MOST_BYTES:
                archive = zipfile.ZipFile(io.BytesIO(file.read()))
                size = sum(member.file_size for member in archive.infolist())
        except FileNotFoundError as error:
            raise DataError(f"{location}: no such file") from error
        except zipfile.BadZipFile as error:
            raise DataError(f"{location}: damaged ({error})") from error
        if size > _MOST_BYTES:
            raise DataError(f"{location}: {size:,} bytes, more than the masks of a video take")
        return archive
