"""Locks for a bucket, which has none: the holder of a folder writes a file `lease` there every few seconds.

A lease that is not renewed for a while is void, and another process may take the folder over. Before it renews its
lease, a holder looks whether it is still its own; one that was cut off for too long finds out so, and ends. Two
processes that come at the same moment may both write; the last one has the folder, as both see when they look again.
"""

from __future__ import annotations

import math
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from ovos_ray.errors import HeldError
from ovos_ray.repeating import repeating
from ovos_ray.storage import Storage, persistently

__all__ = ["LEASE_NAME", "Lease", "leased"]

LEASE_NAME = "lease"
_BEAT_S = 5.0
_SILENT_S = 20.0
"""A lease that was not renewed for so long is void: four beats, since a bucket may be slow or fail once."""


class Lease:
    """A folder that is held, as seen by its holder. Pickled, it lets another process that works for the holder look.

    Args:
        storage: The folder in a bucket; None: it is held by a lock on a disk, which nobody can take over.
        token: What the holder has written into the file.
    """

    def __init__(self, storage: Storage | None = None, token: str = "") -> None:
        self._storage, self.token = storage, token
        self._taken_by = ""
        self._beats = False

    def __reduce__(self) -> tuple[type[Lease], tuple[Storage | None, str]]:
        return type(self), (self._storage, self.token)

    def check(self) -> None:
        """Makes sure that nobody is known to have taken the folder over; asks nobody.

        Raises:
            HeldError: Another process has it.
        """
        if self._taken_by and self._storage is not None:
            raise HeldError(
                f"{self._storage.folder}: taken over by {self._taken_by}, since this process was cut off from the "
                f"bucket for more than {_SILENT_S:.0f} s, or began at the same moment",
                "nothing more is written here: let the other one finish, or end it and give the command again",
            )

    def look(self) -> None:
        """Looks who has the folder.

        Raises:
            HeldError: Another process has it, or had.
            StorageError: The bucket cannot be reached.
        """
        if self._storage is not None and not self._taken_by:
            found = _read(self._storage)
            if _token(found) != self.token:
                self._taken_by = found.split("\n")[0] or "a process that has ended"
        self.check()

    def followed(self) -> AbstractContextManager[None]:
        """Looks again and again while the context is open, for `check`; the holder's own process does so anyway."""
        return nullcontext() if self._storage is None or self._beats else _repeating(self.look)

    @contextmanager
    def _renewed(self, write: Callable[[int], None]) -> Iterator[None]:
        number = 0

        def beat() -> None:
            nonlocal number
            number += 1
            self.look()
            write(number)

        self._beats = True
        with _repeating(beat):
            yield


@contextmanager
def leased(storage: Storage, waiting: Callable[[str], float]) -> Iterator[Lease]:
    """Holds a bucket's folder while the context is open.

    Args:
        storage: The folder.
        waiting: Told once who holds it; returns for how many seconds to wait for them at most.

    Raises:
        TimeoutError: They still hold it after that time.
        StorageError: The bucket cannot be reached.
    """
    who, lease = f"process {os.getpid()} on {platform.node()}", Lease(storage, uuid.uuid4().hex)

    def write(beat: int) -> None:
        storage.put(f"{who}\n{lease.token}\n{beat}\n".encode(), LEASE_NAME)

    deadline = None
    while True:
        if seen := _read(storage):
            if deadline is None:  # whether its holder lives takes a while to see
                deadline = time.monotonic() + max(waiting(seen.split("\n")[0]), _SILENT_S)
            if _lives(storage, seen):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{storage.location(LEASE_NAME)} is still held")
                continue
        if _claimed(storage, seen, lease.token, write):
            break
    try:
        with lease._renewed(write):
            yield lease
    finally:
        with suppress(OSError, HeldError):
            lease.look()
            storage.remove(LEASE_NAME)


def _lives(storage: Storage, seen: str) -> bool:
    """Whether a lease is still renewed.

    Looks are counted, one a second, and not seconds: an outage, in which no holder can renew, must not void all leases.
    """
    pause = min(1.0, _BEAT_S)
    for _ in range(math.ceil(_SILENT_S / pause)):
        time.sleep(pause)
        if (now := _read(storage)) != seen:
            return bool(now)
    return False


def _claimed(storage: Storage, seen: str, token: str, write: Callable[[int], None]) -> bool:
    """Writes the lease unless another process came first.

    Another one may have come at the same moment: waits as long as its request may take, and looks twice who has it.
    """

    def claim() -> bool:
        if (now := _read(storage)) == seen:
            write(0)
            return True
        return _token(now) == token  # the answer to an attempt before was lost

    began = time.monotonic()
    if not persistently(storage.location(LEASE_NAME), claim):
        return False
    pause = max(min(0.5, _BEAT_S), time.monotonic() - began)  # another one's request may take as long as this one's
    for _ in range(2):
        time.sleep(pause)
        if _token(_read(storage)) != token:
            return False
    return True


def _repeating(action: Callable[[], None]) -> AbstractContextManager[None]:
    """Does something at every beat beside what is inside, until the folder is another's."""
    # An outage is forgiven: the lease is void only after some that failed. A beat under way is waited for, since it
    # would write what is removed at the end.
    return repeating(action, _BEAT_S, "lease", forgiving=OSError, until=(HeldError,))


def _read(storage: Storage) -> str:
    """Returns what the lease says; empty: nobody holds it."""
    try:
        return storage.read(LEASE_NAME).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _token(content: str) -> str:
    return [*content.split("\n"), "", ""][1]
