"""A run, and a study, is made by one process at a time: the lock or lease in its folder, held by whoever makes it.

RUN/lock     on a disk: locked by the kernel, which lets go of it when its process ends
RUN/lease    in a bucket, which has no locks: who holds the run, rewritten every few seconds; silent, it is void
"""

from __future__ import annotations

import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from ovos_ray.errors import ResourceError
from ovos_ray.io import exclusive
from ovos_ray.run.request import RunRequest
from ovos_ray.storage import Storage
from ovos_ray.train.run_folder import RunFolder

__all__ = ["HeldError", "hold", "run_lock"]

_PATIENCE_HERE_S = 15.0
"""The processes of a driver that was killed end some seconds after it."""
_PATIENCE_ELSEWHERE_S = 120.0
"""A file server keeps the locks of a machine that is gone for up to 90 seconds."""
_BEAT_S = 5.0
_SILENT_S = 20.0
"""A lease that was not renewed for so long is void: four beats, since a bucket may be slow or fail once."""


class HeldError(ResourceError):
    """Another process makes the same run or study."""


def run_lock(request: RunRequest) -> AbstractContextManager[None]:
    """Holds the run's folder against everybody else who would train the same run; see `hold`.

    A shared run (a pretraining) is waited for, whoever trains it.
    """

    def say(event: str) -> None:
        request.post(0, event=event)

    config = request.config
    return hold(RunFolder.of(config).storage, f"run {config.name}", say, patient=request.shared)


@contextmanager
def hold(storage: Storage, what: str, say: Callable[[str], None], *, patient: bool = False) -> Iterator[None]:
    """Holds a folder against everybody else who would make the same run or study.

    That is made twice by mistake only: the lock is waited for as long as its holder may be dying, then this one gives
    up and the other goes on undisturbed.

    Args:
        storage: The folder.
        what: What it is called.
        say: Told once who holds it.
        patient: Whether to wait for them for ever.

    Raises:
        HeldError: Another process makes it; says which.
    """
    holder = ""

    def waiting(who: str) -> float:
        nonlocal holder
        holder = who
        say(f"waiting: {who} makes {what}")
        here = who.endswith(f" on {platform.node()}")
        return math.inf if patient else _PATIENCE_HERE_S if here else _PATIENCE_ELSEWHERE_S

    with ExitStack() as stack:
        held = exclusive(storage.path("lock"), waiting) if storage.local else _lease(storage, waiting)
        try:
            stack.enter_context(held)
        except TimeoutError:
            raise HeldError(
                f"{what} is being made by {holder}, in {storage.folder}",
                "wait for it, or end that process and give the command again; another name=… starts another one",
            ) from None
        yield


@contextmanager
def _lease(storage: Storage, waiting: Callable[[str], float]) -> Iterator[None]:
    """Holds a bucket's folder by a file that is written again and again; see `io.exclusive` for the rest.

    Two that come at the same moment may both write it: the last one has it, which both see when they look again.
    """
    who, token, ended = f"process {os.getpid()} on {platform.node()}", uuid.uuid4().hex, threading.Event()

    def write(beat: int) -> None:
        storage.write(f"{who}\n{token}\n{beat}\n".encode(), "lease")

    def is_mine() -> bool:
        return _read(storage).split("\n")[1:2] == [token]

    def beat() -> None:
        number = 0
        while not ended.wait(_BEAT_S):
            number += 1
            with suppress(OSError):  # it is void only after some that failed
                write(number)

    deadline = None
    while not is_mine():
        seen, since = _read(storage), time.monotonic()
        while seen and _read(storage) == seen and time.monotonic() - since < _SILENT_S:
            if deadline is None:
                deadline = time.monotonic() + max(waiting(seen.split("\n")[0]), _SILENT_S)
            time.sleep(min(1.0, _BEAT_S))
        if seen and _read(storage) not in ("", seen):  # it lives
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{storage.path('lease')} is still held")
            continue
        write(0)
        time.sleep(min(1.0, _BEAT_S))
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            storage.remove("lease")


def _read(storage: Storage) -> str:
    """Returns who holds the lease; empty: nobody."""
    try:
        return storage.read("lease").decode()
    except FileNotFoundError:
        return ""
