"""Masks in a bucket: one file a video, `VIDEO.zip` with VIDEO/FRAME.png, where PNG by PNG would take a request each."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import decode_mask
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.errors import DataError, OvosError
from ovos_ray.paths import checked_name
from ovos_ray.storage import Storage, location_of

__all__ = ["MaskArchives", "send_masks", "unpacked"]

_MOST_BYTES = 2**28
"""Of an archive, and of what it unpacks to: far above what the masks of a long video take."""
_AT_A_TIME = 8  # archives on their way


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


@contextmanager
def unpacked(place: str | os.PathLike[str], videos: Collection[str] | None = None) -> Iterator[Path]:
    """Yields predictions as a folder with VIDEO/FRAME.png, for as long as the context is open.

    Args:
        place: Such a folder; or one with `VIDEO.zip`, on a disk or in a bucket, as `send_masks` writes them.
        videos: Whose archives are unpacked, where there are such; None: all.

    Raises:
        DataError: A bucket has no archives there, or one is damaged; or a folder is a run's, and its masks lie below.
        StorageError: The bucket cannot be reached.
    """
    location = location_of(os.fspath(place))
    if "://" not in location and not _archives_on_disk(Path(location)):
        if (Path(location) / "config.json").is_file() and (masks := Path(location) / "predictions").is_dir():
            raise DataError(f"{location}: a run, and no folder of masks", f"there are predictions: {masks}")
        yield Path(location)
        return
    bucket = Storage(location)
    names = [name for name in bucket.files() if name.endswith(".zip")]
    if not (here := [name.removesuffix(".zip") for name in names if "/" not in name]):
        below = sorted({name.rpartition("/")[0] for name in names})
        raise DataError(
            f"{location}: no archives of masks there (VIDEO.zip, one a video)",
            f"they are further down: {bucket.location(below[0])}"
            if below
            else "give the folder `predictions` of a run; masks of other programs must be in a folder on this machine",
        )
    archives = MaskArchives(bucket)
    with tempfile.TemporaryDirectory(prefix="ovos-masks-") as folder:
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            wanted = [video for video in here if videos is None or video in videos]
            for _ in pool.map(lambda video: archives.unpack(video, Path(folder)), wanted):
                pass
        try:
            yield Path(folder)
        except OvosError as error:  # speaks of files where the user knows of none
            raise type(error)(*(text and text.replace(folder, location) for text in error.args)) from error


def _archives_on_disk(folder: Path) -> bool:
    """Whether a folder has archives and no folders of masks."""
    return folder.is_dir() and any(folder.glob("*.zip")) and not any(path.is_dir() for path in folder.glob("[!.]*"))


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

    def unpack(self, video: str, folder: Path) -> None:
        """Writes the masks of a video to `folder`/VIDEO/FRAME.png.

        Raises:
            DataError: As `mask`; or it holds something else.
            StorageError: The bucket cannot be reached.
        """
        location = self._bucket.location(f"{video}.zip")
        target = folder / checked_name(video, "video", location)
        target.mkdir()
        archive = self._open(video)
        for member in archive.namelist():
            parent, _, name = member.rpartition("/")
            if parent != video:
                raise DataError(
                    f"{location}: {member!r} in it, expected {video}/FRAME.png alone",
                    "an archive holds the masks of the video that it is named after",
                )
            try:
                content = archive.read(member)
            except Exception as error:  # as in `mask`
                raise DataError(f"{location}: {member} cannot be read ({error})") from error
            (target / checked_name(name, "mask", location)).write_bytes(content)

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
