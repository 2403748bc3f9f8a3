"""Folders on disks and in buckets: whole files, and patience with stores that fail now and then.

A bucket answers some requests with an error, too late or in part, and a file server is away for a minute. That says
nothing of the data: such a request is made again, after longer and longer random pauses. What lasts is a
`StorageError`, which nobody takes for damaged data.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tenacity

from ovos_ray.errors import StorageError, first_line
from ovos_ray.io import atomic_path

if TYPE_CHECKING:
    from pyarrow import fs

__all__ = ["Storage", "filesystem_of", "location_of", "persistently"]

PATIENCE_S = 120.0
"""How long a request that fails is made again."""
_TOLD_AFTER = 3  # attempts; single errors are a bucket's everyday life
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0
_PASSING = frozenset(
    number
    for number, name in errno.errorcode.items()
    if name in ("EIO", "EAGAIN", "EINTR", "EBUSY", "ESTALE", "ETIMEDOUT", "EPIPE", "EREMOTEIO")
    or name.startswith(("ECONN", "ENET", "EHOST"))
)
_SAYS_WHAT_IS_THERE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_REFUSED = re.compile(
    r"ACCESS_DENIED|PERMISSION_DENIED|UNAUTHENTICATED|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|INVALID_|MISSING_|"
    r"UNRECOGNIZED_CLIENT|AuthenticationFailed|AuthorizationFailure|HTTP status 4(?!08|29)\d\d"
)
"""What a bucket says to those whom it will not serve, as Arrow passes it on."""
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def filesystem_of(location: str | Path) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a folder or bucket URI (`s3://…`, `gs://…`, `file://…`) and the path in it.

    Raises:
        StorageError: The bucket cannot be reached, or the URI is of no store that is known.
    """
    from pyarrow import ArrowInvalid, ArrowNotImplementedError, fs

    text = str(location)
    if "://" not in text:
        return fs.LocalFileSystem(), str(Path(text).absolute())
    uri = text
    if text.startswith("s3://") and "allow_delayed_open" not in text:  # small files in one request instead of three
        uri += ("&" if "?" in text else "?") + "allow_delayed_open=true"
    try:
        filesystem, path = persistently(text, lambda: fs.FileSystem.from_uri(uri))  # may ask for a bucket's region
    except (ArrowInvalid, ArrowNotImplementedError) as error:
        raise StorageError(
            f"{text}: {first_line(error)}", "give a folder, or a URI that begins with s3://, gs://, abfs:// or file://"
        ) from error
    return filesystem, path


def location_of(path: str | Path) -> str:
    """Returns a location as text; a URI that went through `Path`, and lost slashes there, is one again."""
    return re.sub(r"^(\w{2,}):/(?!/)", r"\1://", re.sub("^file:/(?!/)", "file:///", str(path)))


def persistently(location: str, request: Callable[[], _T]) -> _T:
    """Makes a request to a store, again and again where it fails for a reason that passes.

    Args:
        location: What is asked for, for messages: a path on a disk, or a URI.
        request: Makes the request; harmless if it is made twice.

    Raises:
        StorageError: The store cannot be reached for two minutes, or refuses.
        OSError: What a disk says, such as that it is full, or that there is no such file.
    """
    remote = "://" in location and not location.startswith("file://")

    def passes(error: BaseException) -> bool:
        if not isinstance(error, OSError) or isinstance(error, (StorageError, *_SAYS_WHAT_IS_THERE)):
            return False
        return error.errno in _PASSING or (remote and _REFUSED.search(str(error)) is None)

    def waits(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == _TOLD_AFTER and state.outcome is not None:
            _log.warning("%s: trying again for up to %.0f s: %s", location, PATIENCE_S, state.outcome.exception())

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passes),
        wait=tenacity.wait_random_exponential(_PAUSE_S, _LONGEST_PAUSE_S),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        before_sleep=waits,
        reraise=True,
    )
    try:
        return retrying(request)
    except OSError as error:
        if passes(error):
            tried = retrying.statistics.get("attempt_number", 1)
            raise StorageError(
                f"{location}: the storage cannot be reached, {tried} attempts in {PATIENCE_S:.0f} s failed ({error})",
                "the data there is not known to be damaged: see to the network and the store, then give the same "
                "command again",
            ) from error
        if remote and not isinstance(error, (StorageError, *_SAYS_WHAT_IS_THERE)):
            raise StorageError(
                f"{location}: the storage refuses ({error})",
                "check the bucket's name, its region and endpoint (AWS_ENDPOINT_URL), and the credentials of this "
                "machine",
            ) from error
        raise


class Storage:
    """A folder on disk or in a bucket, whose files are either whole or absent.

    Args:
        folder: A path, or a URI that `pyarrow.fs` understands (`s3://`, `gs://`, `file://`, …).

    Raises:
        StorageError: The bucket cannot be reached; so do all methods.
    """

    def __init__(self, folder: str) -> None:
        from pyarrow import fs

        self.folder = folder
        self.fs, self.root = filesystem_of(folder)
        self.local = isinstance(self.fs, fs.LocalFileSystem)

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return type(self), (self.folder,)

    def path(self, *parts: str) -> str:
        """Returns the path of a file or folder within the file system."""
        return "/".join((self.root.rstrip("/"), *parts))

    def location(self, *parts: str) -> str:
        """Returns the path or URI of a file or folder."""
        return "/".join((self.folder.rstrip("/"), *parts))

    def __truediv__(self, name: str) -> Storage:
        return Storage(self.location(name))

    def read(self, *parts: str) -> bytes:
        """Reads a file.

        Raises:
            FileNotFoundError: There is none.
        """

        def request() -> bytes:
            with self.fs.open_input_file(self.path(*parts)) as file:
                content, size = bytes(file.read()), file.size()
            if len(content) != size:
                raise OSError(f"{len(content)} of {size} bytes arrived")
            return content

        return persistently(self.location(*parts), request)

    def write(self, content: bytes | memoryview, *parts: str) -> None:
        """Writes a file, atomically; folders are made as needed."""
        path = self.path(*parts)

        def on_disk() -> None:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)

        def in_bucket() -> None:
            # An object shows when its stream is closed, also after a failed write: only a whole one gets the name.
            unfinished = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                with self.fs.open_output_stream(unfinished) as file:
                    file.write(content)
                if (size := self.fs.get_file_info(unfinished).size) != memoryview(content).nbytes:
                    raise OSError(f"{size} of {memoryview(content).nbytes} bytes arrived")
                self.fs.move(unfinished, path)
            except BaseException:
                with suppress(OSError):
                    self.fs.delete_file(unfinished)
                raise

        persistently(self.location(*parts), on_disk if self.local else in_bucket)

    def put(self, content: bytes, *parts: str) -> None:
        """Writes a small file with one request, which is not made again; a bucket takes it as a whole or not at all.

        Raises:
            OSError: It failed; the file may be there all the same.
        """
        path = self.path(*parts)
        if self.local:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
            return
        with self.fs.open_output_stream(path) as file:
            file.write(content)

    def exists(self, *parts: str) -> bool:
        """Whether there is a file of this name."""
        path = self.path(*parts)
        return bool(persistently(self.location(*parts), lambda: self.fs.get_file_info(path)).is_file)

    def folders(self) -> list[str]:
        """Returns the names of the folders directly below, sorted; none where this one is absent."""
        from pyarrow import fs

        below = fs.FileSelector(self.root, allow_not_found=True)
        try:
            found = persistently(self.folder, lambda: self.fs.get_file_info(below))
        except FileNotFoundError:  # it was made between the listing, which failed, and Arrow's look whether it exists
            return []
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def files(self) -> list[str]:
        """Returns the paths of all files below, from here, sorted; none where this folder is absent."""
        from pyarrow import fs

        below = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        found = persistently(self.folder, lambda: self.fs.get_file_info(below))
        start = len(self.root.rstrip("/")) + 1
        return sorted(info.path[start:] for info in found if info.type == fs.FileType.File)

    def remove(self, *parts: str) -> None:
        """Removes a file.

        Raises:
            FileNotFoundError: There is none.
        """
        self._remove(self.fs.delete_file, *parts)

    def remove_folder(self, *parts: str) -> None:
        """Removes a folder with all it holds.

        Raises:
            FileNotFoundError: There is none.
        """
        self._remove(self.fs.delete_dir, *parts)

    def _remove(self, delete: Callable[[str], None], *parts: str) -> None:
        tried = False

        def request() -> None:
            nonlocal tried
            again, tried = tried, True
            try:
                delete(self.path(*parts))
            except FileNotFoundError:
                if not again:  # else the answer to the first attempt was lost on its way
                    raise

        persistently(self.location(*parts), request)

    def move(self, name: str, target: str) -> None:
        """Moves a folder to another name below this one, which must be free."""
        from pyarrow import fs

        if self.local:
            Path(self.path(target)).parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.path(name), self.path(target))
        else:  # a bucket has no folders, only names
            source, there = self.path(name), self.path(target)
            persistently(self.location(name), lambda: fs.copy_files(source, there, self.fs, self.fs))
            self.remove_folder(name)
