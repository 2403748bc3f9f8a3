"""Files and folders that are either whole or absent."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import platform
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovos_ray.errors import DataError
from ovos_ray.paths import MARKER, require_replaceable, write_marker

__all__ = [
    "atomic_path",
    "exclusive",
    "make_folder",
    "read_json",
    "restore_folder",
    "whole_folder",
    "write_json",
]

_ABANDONED_S = 24 * 3600.0
_own: set[str] = set()  # temporary names in use by this process


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed, on failure removed.

    A reader never sees a half-written file, and a process killed while writing leaves the previous file intact; what it
    left of the new one is removed when the file is written again.
    """
    target = Path(path)
    make_folder(target.parent)
    for left in _abandoned(target, "tmp"):
        left.unlink(missing_ok=True)
    with _temporary(target, "tmp") as temporary:
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(
    path: str | os.PathLike[str], kind: str, *evidence: str, marker: Path | None = None, note: str = ""
) -> Iterator[Path]:
    """Yields a hidden folder beside `path` that takes its place when the block succeeds, and is removed if it fails.

    The new folder is marked and synced. An old one is moved aside until the new one is there; after a kill between the
    two moves, the next call puts it back first. What killed processes left is removed.

    Args:
        path: The folder; links are followed.
        kind: What it holds, such as `predictions`; a folder that does not say so is never replaced.
        evidence: Patterns of names that together say as much as the marker, see `paths.require_replaceable`.
        marker: Where the marker lies, if not in the folder; it holds `note` only while the whole folder is there.
        note: A line on what is in it, see `paths.note_of`.

    Raises:
        DataError: There is a folder that this program did not make.
    """
    target = Path(path).resolve()
    restore_folder(target, kind, *evidence, marker=marker)
    require_replaceable(target, kind, *evidence, marker=marker)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target, "partial") as partial, _temporary(target, "replaced") as aside:
        try:
            partial.mkdir()
            write_marker(partial / MARKER, kind, note)
            yield partial
            if marker is not None:
                (partial / MARKER).unlink()
            _sync_tree(partial)
            require_replaceable(target, kind, *evidence, marker=marker)  # it may have been filled meanwhile
            if marker is not None:
                _replace_marker(marker, kind, "being replaced")
            if target.exists():
                os.rename(target, aside)
            os.rename(partial, target)
            _sync_folder(target.parent)
            if marker is not None:
                _replace_marker(marker, kind, note)
        finally:
            if aside.exists() and not target.exists():
                os.rename(aside, target)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)


def restore_folder(target: Path, kind: str, *evidence: str, marker: Path | None = None) -> None:
    """Undoes what a process did that was killed within `whole_folder`; takes the same arguments."""
    for suffix in ("replaced", "partial"):
        for left in _abandoned(target, suffix):
            require_replaceable(left, kind, *evidence, marker=marker)
            if suffix == "replaced" and not target.exists():
                os.rename(left, target)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _replace_marker(marker: Path, kind: str, note: str) -> None:
    with atomic_path(marker) as temporary:
        write_marker(temporary, kind, note)


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(os.path.join(folder, name))
        _sync_folder(folder)


@contextmanager
def _temporary(target: Path, suffix: str) -> Iterator[Path]:
    """Yields a path beside `target` whose name says which process uses it: `.NAME.HOST-PROCESS-HEX.SUFFIX`."""
    name = f".{target.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.{suffix}"
    _own.add(name)
    try:
        yield target.with_name(name)
    finally:
        _own.discard(name)


def _abandoned(target: Path, suffix: str) -> list[Path]:
    """Returns the temporary paths of `target` that nobody uses any more: their process is gone, or silent for a day."""
    found = []
    for path in target.parent.glob(f".{glob.escape(target.name)}.*-*-*.{suffix}"):
        host, process, _ = path.name.removeprefix(f".{target.name}.").removesuffix(f".{suffix}").split("-", 2)
        if host == _host() and process.isdigit():
            abandoned = path.name not in _own if int(process) == os.getpid() else not _is_running(int(process))
        else:
            try:
                abandoned = time.time() - path.stat().st_mtime > _ABANDONED_S
            except FileNotFoundError:
                continue
        if abandoned:
            found.append(path)
    return found


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Makes a folder and those above it; they too survive a power cut, else what is in them does not.

    There is no harm if it exists; `mode` less the umask are the permissions of new ones.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(mode, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    _sync_folder(folder.parent)


def _sync(path: str | os.PathLike[str]) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: str | os.PathLike[str]) -> None:
    """Makes a rename survive a power cut (no effect where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], value: Any, *, mode: int = 0o666) -> None:
    """Writes `value` as indented JSON, atomically; `mode` less the umask are the file's permissions."""
    with atomic_path(path) as temporary:
        temporary.touch(mode)
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


@contextmanager
def exclusive(
    path: str | os.PathLike[str], waiting: Callable[[str], float | None] | None = None, *, poll_s: float = 1.0
) -> Iterator[None]:
    """Waits until no other process is inside the same path's context, on this machine or over a network disk.

    The kernel holds the lock, not the file: it ends with its process, also by SIGKILL, and nothing needs tidying up. On
    a file system without locks nobody waits; use this only where two at a time waste work and break nothing.

    Args:
        path: A file that says who is inside; made as needed, never removed by whoever is not inside. Who waits for one
            that is moved or removed waits for the one that takes its place.
        waiting: Called once with who is inside, before waiting for them; may return how many seconds to wait at most.
        poll_s: Seconds between two attempts.

    Raises:
        TimeoutError: They are still inside after that time.
        DataError: The file is a link.
    """
    import fcntl

    target = Path(path)
    told, deadline = False, math.inf
    descriptor = _open_lock(target)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _lies_at(descriptor, target):
                    break
                moved, descriptor = descriptor, _open_lock(target)
                os.close(moved)
                continue
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    break
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{target} is still held") from error
            if not told and waiting is not None:
                seconds = waiting(os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process")
                deadline = math.inf if seconds is None else time.monotonic() + seconds
            told = True
            time.sleep(poll_s)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_lock(target: Path, attempts: int = 100) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:  # what a link leads to, in a folder of a stranger's, would be emptied
        return os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError:  # whoever had made the folder has removed it; or no file can be made there, as in /proc
        if attempts == 1:
            raise
        return _open_lock(target, attempts - 1)
    except OSError as error:
        if not target.is_symlink():
            raise
        raise DataError(f"{target}: is a link, and no lock", "remove it; look at who has made this folder") from error


def _lies_at(descriptor: int, target: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(target))
    except FileNotFoundError:
        return False
