"""What a run has to say to the tracking server, kept on disk until the server has it.

A spool is a folder: `run.json` says which run it belongs to, `records.jsonl` holds one record a line in the order they
were logged, `files/` holds copies of artifacts, and `sent.json` says up to which byte the server has confirmed. The
training process only appends; one sender at a time reads, guarded by a lock that the system drops when a process dies.
Only its owner may read it, and nothing in it is followed out of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ovos_ray.errors import OvosError, TrackingError
from ovos_ray.io import make_folder, write_json
from ovos_ray.track.records import Record, RunIdentity

__all__ = ["Spool", "find_spools"]

_log = logging.getLogger(__name__)
_MAX_HELD = 20_000  # records that wait in memory for a full disk, a few MB
_MAX_LINE = 16 << 20


class Spool:
    """The append-only record of one run, in a folder below `root`.

    Raises:
        TrackingError: The folder cannot be written.
    """

    def __init__(self, root: Path, identity: RunIdentity) -> None:
        self._open(root / _folder_name(identity), identity)
        try:
            make_folder(root.parent)
            make_folder(root, 0o700)
            for folder in (self.folder, self.folder / "files"):
                make_folder(folder, 0o700)
                folder.chmod(0o700)  # one of an older version
            if not _says(self.folder, identity):
                write_json(self.folder / "run.json", asdict(identity), mode=0o600)
        except OSError as error:
            raise TrackingError(
                f"the tracking spool {self.folder} cannot be written: {error}", "choose another storage folder"
            ) from error

    def _open(self, folder: Path, identity: RunIdentity) -> None:
        self.folder, self.identity = folder, identity
        self.lost = 0
        """Records that neither disk nor memory could hold."""
        self._mutex = threading.Lock()
        self._file: BinaryIO | None = None
        self._held: deque[bytes] = deque()
        self._told: set[int] = set()

    @classmethod
    def load(cls, folder: Path) -> Spool:
        """Opens the spool that an earlier process left in `folder`; nothing is written.

        Raises:
            TrackingError: It does not say which run it belongs to, or is no plain folder.
        """
        if folder.is_symlink() or (folder / "files").is_symlink():
            raise TrackingError(f"{folder} leads elsewhere by a link", "remove it; spools hold their files themselves")
        spool = cls.__new__(cls)
        spool._open(folder, RunIdentity.read(folder / "run.json"))
        return spool

    @property
    def records_path(self) -> Path:
        """The file of records."""
        return self.folder / "records.jsonl"

    def append(self, kind: str, data: Mapping[str, Any]) -> None:
        """Adds a record; it survives the death of this process from here on, and a power cut after `sync`.

        Raises:
            OSError: The disk takes no more. The record is kept in memory, to be written or sent when that is possible.
        """
        line = json.dumps({"kind": kind, "time_ms": time.time_ns() // 1_000_000, "data": data}) + "\n"
        with self._mutex:
            self._held.append(line.encode())
            try:
                self._write_held()
            finally:
                while len(self._held) > _MAX_HELD:
                    self._held.popleft()
                    self.lost += 1

    def _write_held(self) -> None:
        while self._held:
            if self._file is None:
                self._file = self._open_file("records.jsonl", os.O_RDWR | os.O_APPEND)
                self._end_torn_line(self._file)
            whole = os.fstat(self._file.fileno()).st_size
            line = self._held[0]
            if self._file.write(line) < len(line):
                os.ftruncate(self._file.fileno(), whole)
                raise OSError(f"no space for {self.records_path}")
            self._held.popleft()

    def _open_file(self, name: str, flags: int) -> BinaryIO:
        """Opens a file of the spool, made as needed; never what a link or a pipe in its place leads to."""
        flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.folder / name, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.folder / name} is not a file")
        return os.fdopen(descriptor, "rb+" if flags & os.O_RDWR else "wb", buffering=0)

    @staticmethod
    def _end_torn_line(file: BinaryIO) -> None:
        """Closes the line that a killed process left half-written, so that the next one stays readable."""
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def take_held(self) -> list[bytes]:
        """Hands over the lines that wait in memory, oldest first; writes them instead if the disk takes them again."""
        with self._mutex:
            with suppress(OSError):
                self._write_held()
            lines = list(self._held)
            self._held.clear()
            return lines

    def give_back(self, lines: list[bytes]) -> None:
        """Takes back what `take_held` handed over and could not be sent."""
        with self._mutex:
            self._held.extendleft(reversed(lines))

    @property
    def num_held(self) -> int:
        """Records that are in memory only."""
        return len(self._held)

    def keep(self, source: Path | bytes, name: str) -> str:
        """Copies a file or folder into the spool and returns its place in `files/`.

        Raises:
            OSError: There is no space, or no such file; nothing is left of the copy.
        """
        with self._mutex:
            place = f"{time.time_ns():x}-{len(os.listdir(self.folder / 'files'))}"
        target = self.folder / "files" / place / Path(name).name
        target.parent.mkdir(0o700)
        try:
            if isinstance(source, bytes):
                target.write_bytes(source)
            elif source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copyfile(source, target)
            for path in [target, *target.rglob("*")]:
                path.chmod(0o700 if path.is_dir() else 0o600)
                if path.is_file():
                    with open(path, "rb") as file:
                        os.fsync(file.fileno())
        except BaseException:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return f"{place}/{target.name}"

    def kept(self, place: str) -> Path:
        """Returns the path of what `keep` stored, which may have been sent and released before.

        Raises:
            TrackingError: A link leads from there to what is not in the spool.
        """
        path = self.folder / "files" / place
        for part in (self.folder / "files", path.parent, path, *(path.rglob("*") if path.is_dir() else ())):
            if part.is_symlink() or (part.exists() and not (part.is_file() or part.is_dir())):
                raise TrackingError(
                    f"{part} is a link or no file, and is not sent", "spools hold their files themselves"
                )
        return path

    def release(self, place: str) -> None:
        """Deletes what `keep` stored, once the server has it or refuses it for good."""
        folder = self.folder / "files" / place.partition("/")[0]
        if not (folder.parent.is_symlink() or folder.is_symlink()):
            shutil.rmtree(folder, ignore_errors=True)

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yields the complete records from byte `start` on; a damaged line is named in the log and passed over."""
        try:
            file = open(self.records_path, "rb", opener=_no_links)  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            file.seek(start)
            position = start
            while line := file.readline(_MAX_LINE):
                position += len(line)
                if len(line) < _MAX_LINE and not line.endswith(b"\n"):
                    return  # its end is being written
                try:
                    yield Record.parse(line, position)
                except ValueError as error:
                    if position not in self._told:
                        _log.warning("record before byte %d of %s passed over: %s", position, self.records_path, error)
                    self._told.add(position)

    def sync(self) -> None:
        """Makes what was appended survive a power cut."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    @property
    def sent(self) -> dict[str, Any]:
        """How far the server confirmed: `run_id`, `offset` in bytes, `linked` to the parent, and counts.

        A damaged note is as none: everything is offered again, and the server asked for what it has.
        """
        state: dict[str, Any] = {"run_id": None, "offset": 0, "linked": self.identity.parent_key is None, "repeated": 0}
        try:
            with open(self.folder / "sent.json", "rb", opener=_no_links) as file:
                given = json.loads(file.read(1 << 16))
            size = self.records_path.stat().st_size if self.records_path.exists() else 0
            if (
                (given["run_id"] is None or isinstance(given["run_id"], str))
                and (type(given["offset"]) is int and 0 <= given["offset"] <= size)
                and type(given["linked"]) is bool
                and type(given["repeated"]) is int
            ):
                state = {key: given[key] for key in state}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s is damaged (%s): all records are offered again", self.folder / "sent.json", error)
        return state

    def confirm(self, state: Mapping[str, Any]) -> None:
        """Stores how far the server confirmed."""
        write_json(self.folder / "sent.json", state, mode=0o600)

    def reject(self, record: Record, reason: str) -> None:
        """Keeps a record that cannot be sent, ever, in `rejected.jsonl`, and says so."""
        _log.warning("a record of %s cannot be sent: %s", self.identity.run_key, reason)
        line = json.dumps({"kind": record.kind, "data": record.data, "reason": reason}) + "\n"
        with suppress(OSError), self._open_file("rejected.jsonl", os.O_WRONLY | os.O_APPEND) as file:
            file.write(line.encode())

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Holds the right to send; yields False when another living process has it."""
        with self._open_file("lock", os.O_RDWR) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def close(self) -> None:
        """Closes the file of records."""
        with self._mutex:
            if self._file is not None:
                self._file.close()
                self._file = None


def find_spools(root: Path) -> tuple[list[Spool], list[OvosError]]:
    """Returns the spools anywhere under `root`, those without a parent first: a sweep comes before its trials.

    Returns:
        The spools, and one error for each folder that is damaged or leads elsewhere; links are not followed.
    """
    spools, damaged = [], []
    for path in sorted(root.rglob("run.json")):
        if (path.parent / "files").is_dir():
            try:
                spools.append(Spool.load(path.parent))
            except OvosError as error:
                damaged.append(error)
    return sorted(spools, key=lambda spool: spool.identity.parent_key is not None), damaged


def _says(folder: Path, identity: RunIdentity) -> bool:
    try:
        return RunIdentity.read(folder / "run.json") == identity
    except OvosError:
        return False


def _no_links(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a file")
    return descriptor


def _folder_name(identity: RunIdentity) -> str:
    """A readable name that differs whenever store, experiment or key do."""
    exact = json.dumps([identity.tracking_uri, identity.experiment, identity.run_key])
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.run_key)[:60]
    return f"{readable}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"
