"""The tables of large indices as all processes of a node map them: one copy in memory, laid out by the first to come.

CACHE/indices/DIGEST.arrow

The digest is that of the Parquet file that the table was read from, so that shards packed anew are never taken for the
old ones. Where the cache cannot be had, each process reads a table of its own, as it would without one.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from ovos_ray.errors import DataError
from ovos_ray.io import atomic_path, exclusive, make_folder
from ovos_ray.paths import cache_folder

__all__ = ["mapped_table"]

_WAIT_S, _POLL_S = 60.0, 0.05
_UNUSED_S = 60 * 24 * 3600.0
_OWN = re.compile(r"[0-9a-f]{32}\.arrow|\.[0-9a-f]{32}\.arrow\..+\.tmp")
"""Names of what is made here. The folder lies where the user says, and may be theirs."""


def mapped_table(digest: str, read: Callable[[], pa.Table]) -> pa.Table:
    """Returns a table whose memory all processes of this user on this node share.

    Args:
        digest: Of what it is read from; becomes the name of a file.
        read: Reads and checks it; called by one process of a node, or by all where they cannot share. What it raises
            is raised.
    """
    path = cache_folder() / "indices" / f"{digest}.arrow"
    with ExitStack() as turn:
        try:
            _make_private(path.parent)
            if (found := _mapped(path)) is None:
                turn.enter_context(exclusive(path.with_name("lock"), lambda _: _WAIT_S, poll_s=_POLL_S))
                found = _mapped(path)  # made by whom this one waited for
        except (OSError, DataError):
            return read()
        if found is not None:
            return found
        table = read()
        try:
            _write(path, table)
            return _mapped(path) or table
        except OSError:
            return table


def _make_private(folder: Path) -> None:
    make_folder(folder, 0o700)
    status = os.lstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder}: others might plant tables here")


def _mapped(path: Path) -> pa.Table | None:
    """The table of a file, whose pages come from the kernel; None where there is no whole one."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            os.utime(file.fileno())  # says that it is in use
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_file(pa.py_buffer(pages)).read_all()
    except (FileNotFoundError, ValueError, pa.ArrowException):
        return None


def _write(path: Path, table: pa.Table) -> None:
    for old in path.parent.iterdir():  # also what killed processes left, and nothing that has another name
        if _OWN.fullmatch(old.name) and time.time() - old.lstat().st_mtime > _UNUSED_S:
            old.unlink(missing_ok=True)
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table.combine_chunks())  # in one piece, or each process would join the pieces for itself
