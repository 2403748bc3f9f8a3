"""What a run has to say to the tracking server, kept on disk until the server has it.

A spool is a folder: `run.json` says which run it belongs to, `records.jsonl` holds one record a line in the order they
were logged, `files/` holds copies of artifacts, and `sent.json` says up to which byte the server has confirmed. The
training process only appends; one sender at a time reads, guarded by a lock that the system drops when a process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ovos_ray.errors import TrackingError
from ovos_ray.io import read_json, write_json

__all__ = ["Record", "RunIdentity", "Spool", "find_spools"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """Which MLflow run a spool belongs to.

    Attributes:
        tracking_uri: The MLflow store, absolute.
        experiment: Name of the MLflow experiment (the study).
        run_key: What finds the run again, in every later process; unique within the experiment.
        name: The name shown for the run.
        parent_key: `run_key` of the parent run (the sweep), or None.
    """

    tracking_uri: str
    experiment: str
    run_key: str
    name: str
    parent_key: str | None = None


@dataclass(frozen=True)
class Record:
    """One line of the spool.

    Attributes:
        kind: `metrics`, `params`, `tags`, `artifact`, `dataset`, `model` or `finish`.
        time_ms: When it was logged, in milliseconds since the epoch. Resending keeps it, so that the store knows a
            repeated point.
        data: What the kind needs.
        end: Byte position after this record.
    """

    kind: str
    time_ms: int
    data: dict[str, Any]
    end: int


class Spool:
    """The append-only record of one run.

    Args:
        root: Folder that holds the spools of all runs.
        identity: The run.

    Raises:
        TrackingError: The folder cannot be written.
    """

    def __init__(self, root: Path, identity: RunIdentity) -> None:
        self.identity = identity
        self.folder = root / _folder_name(identity)
        try:
            (self.folder / "files").mkdir(parents=True, exist_ok=True)
            if not (self.folder / "run.json").exists():
                write_json(self.folder / "run.json", asdict(identity))
        except OSError as error:
            raise TrackingError(
                f"the tracking spool {self.folder} cannot be written: {error}", "choose another storage folder"
            ) from error
        self._mutex = threading.Lock()
        self._file: BinaryIO | None = None

    @classmethod
    def load(cls, folder: Path) -> Spool:
        """Opens the spool that an earlier process left in `folder`."""
        return cls(folder.parent, RunIdentity(**read_json(folder / "run.json")))

    @property
    def records_path(self) -> Path:
        """The file of records."""
        return self.folder / "records.jsonl"

    def append(self, kind: str, data: Mapping[str, Any]) -> None:
        """Adds a record; it survives the death of this process from here on, and a power cut after `sync`."""
        line = json.dumps({"kind": kind, "time_ms": time.time_ns() // 1_000_000, "data": data}) + "\n"
        with self._mutex:
            if self._file is None:
                self._file = open(self.records_path, "ab", buffering=0)  # noqa: SIM115 - held open for the run
                self._end_torn_line(self._file)
            if self._file.write(line.encode()) < len(line.encode()):
                self._file.close()
                self._file = None
                raise OSError(f"no space for {self.records_path}")

    def _end_torn_line(self, file: BinaryIO) -> None:
        """Closes the line that a killed process left half-written, so that the next one stays readable."""
        size = self.records_path.stat().st_size
        if size:
            with open(self.records_path, "rb") as reader:
                reader.seek(size - 1)
                if reader.read(1) != b"\n":
                    file.write(b"\n")

    def keep(self, source: Path | bytes, name: str) -> str:
        """Copies a file or folder into the spool and returns its place in `files/`."""
        with self._mutex:
            place = f"{time.time_ns():x}-{len(os.listdir(self.folder / 'files'))}"
        target = self.folder / "files" / place / Path(name).name
        target.parent.mkdir(parents=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        elif source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return f"{place}/{target.name}"

    def kept(self, place: str) -> Path:
        """Returns the path of what `keep` stored."""
        return self.folder / "files" / place

    def release(self, place: str) -> None:
        """Deletes what `keep` stored, once the server has it."""
        shutil.rmtree(self.kept(place).parent, ignore_errors=True)

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yields the complete records from byte `start` on; a damaged line is named in the log and passed over."""
        if not self.records_path.exists():
            return
        with open(self.records_path, "rb") as file:
            file.seek(start)
            position = start
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                try:
                    yield Record(**json.loads(line), end=position)
                except (ValueError, TypeError):
                    _log.warning("damaged record before byte %d of %s passed over", position, self.records_path)

    def sync(self) -> None:
        """Makes what was appended survive a power cut."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    @property
    def sent(self) -> dict[str, Any]:
        """How far the server confirmed: `run_id`, `offset` in bytes, `linked` to the parent, and counts."""
        path = self.folder / "sent.json"
        state: dict[str, Any] = read_json(path) if path.exists() else {}
        return {"run_id": None, "offset": 0, "linked": self.identity.parent_key is None, "repeated": 0, **state}

    def confirm(self, state: Mapping[str, Any]) -> None:
        """Stores how far the server confirmed."""
        write_json(self.folder / "sent.json", state)

    def reject(self, record: Record, reason: str) -> None:
        """Keeps a record that the server refuses for good in `rejected.jsonl`, and says so."""
        _log.warning("the tracking server refuses a record of %s: %s", self.identity.run_key, reason)
        with open(self.folder / "rejected.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": record.kind, "data": record.data, "reason": reason}) + "\n")

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Holds the right to send; yields False when another living process has it."""
        with open(self.folder / "lock", "w", encoding="utf-8") as file:
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


def find_spools(root: Path) -> list[Spool]:
    """Returns the spools anywhere under `root`, those without a parent first: a sweep comes before its trials."""
    found = [path.parent for path in sorted(root.rglob("run.json")) if (path.parent / "files").is_dir()]
    spools = [Spool.load(folder) for folder in found]
    return sorted(spools, key=lambda spool: spool.identity.parent_key is not None)


def _folder_name(identity: RunIdentity) -> str:
    """A readable name that differs whenever store, experiment or key do."""
    exact = json.dumps([identity.tracking_uri, identity.experiment, identity.run_key])
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.run_key)[:60]
    return f"{readable}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"
