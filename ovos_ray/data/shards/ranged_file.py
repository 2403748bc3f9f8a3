"""A shard file that is read in parts, of a disk or a bucket that fails now and then."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ovos_ray.storage import persistently

if TYPE_CHECKING:
    from pyarrow import fs

__all__ = ["RangedFile"]


class RangedFile:
    """A file in a bucket or on a disk, read in parts: each read is whole, or is made again.

    Arrow can read from it, too (`pyarrow.PythonFile`).

    Args:
        filesystem: Of the bucket or disk.
        path: In it.
        location: What messages call it; in a bucket with its scheme.

    Attributes:
        size: In bytes.

    Raises:
        FileNotFoundError: There is none.
        StorageError: The bucket cannot be reached.
    """

    closed = False

    def __init__(self, filesystem: fs.FileSystem, path: str, location: str) -> None:
        self._filesystem, self._path, self._location = filesystem, path, location
        self._file = persistently(location, lambda: filesystem.open_input_file(path))
        self.size: int = persistently(location, self._file.size)
        self._at = 0
        self._kept: list[tuple[int, bytes]] = []

    def keep(self, ranges: Iterable[tuple[int, int]], *, hole: int = 1 << 20) -> None:
        """Reads what will be asked for, (start, end) each, in few requests; it stays until the next call.

        Args:
            ranges: In ascending order.
            hole: Bytes between two ranges that are rather read too than left to a request of their own, which takes as
                long as this much data.
        """
        merged: list[tuple[int, int]] = []
        for start, end in ranges:
            if merged and start - merged[-1][1] <= hole:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._kept = [(start, self._range(start, end - start)) for start, end in merged]

    def keep_end(self, size: int) -> None:
        """Reads the last bytes, where Arrow looks first, in one request."""
        self.keep([(max(self.size - size, 0), self.size)])

    def read(self, size: int = -1) -> bytes:
        """Reads from the current place on, fewer bytes only where the file ends."""
        start, self._at = self._at, self.size if size < 0 else min(self._at + size, self.size)
        return self.part(start, self._at)

    def part(self, start: int, end: int) -> bytes:
        """Returns the bytes from one place to another, of what is kept if they are there.

        Raises:
            OSError: The file ends before.
        """
        for first, content in self._kept:
            if first <= start and end <= first + len(content):
                return content[start - first : end - first]
        return self._range(start, max(end - start, 0))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """Returns the place."""
        return self._at

    def close(self) -> None:
        """Lets go of it."""
        self._kept, self.closed = [], True

    def _range(self, start: int, size: int) -> bytes:
        if not 0 <= start <= start + size <= self.size:
            raise OSError(f"bytes {start} to {start + size} of a file of {self.size}")

        def request() -> bytes:
            file = self._file or self._opened_again()
            self._file = None  # one that failed may fail for ever, as that of a file server that was started anew
            content = bytes(file.read_at(size, start))
            if len(content) != size:
                raise OSError(f"{len(content)} of {size} bytes arrived")
            self._file = file
            return content

        return persistently(self._location, request)

    def _opened_again(self) -> fs.NativeFile:
        file = self._filesystem.open_input_file(self._path)
        if (size := file.size()) != self.size:
            raise FileNotFoundError(f"{self._location}: replaced, it has {size} bytes now and had {self.size}")
        return file
