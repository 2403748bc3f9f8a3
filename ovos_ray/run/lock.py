"""A run, and a study, is made by one process at a time: the lock or lease in its folder, held by whoever makes it.

RUN/lock     on a disk: locked by the kernel, which lets go of it when its process ends
RUN/lease    in a bucket, which has no locks: see `ovos_ray/lease.py`
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from ovos_ray.errors import HeldError
from ovos_ray.io import exclusive
from ovos_ray.lease import Lease, leased
from ovos_ray.run.request import RunRequest
from ovos_ray.storage import Storage
from ovos_ray.train.run_folder import RunFolder

__all__ = ["hold", "run_lock"]

_PATIENCE_HERE_S = 15.0
"""The processes of a driver that was killed end some seconds after it."""
_PATIENCE_ELSEWHERE_S = 120.0
"""A file server keeps the locks of a machine that is gone for up to 90 seconds."""


def run_lock(request: RunRequest) -> AbstractContextManager[Lease]:
    """Holds the run's folder against everybody else who would train the same run; see `hold`.

    A shared run (a pretraining) is waited for, whoever trains it.
    """

    def say(event: str) -> None:
        request.post(0, event=event)

    config = request.config
    return hold(RunFolder.of(config).storage, f"run {config.name}", say, patient=request.shared)


@contextmanager
def hold(storage: Storage, what: str, say: Callable[[str], None], *, patient: bool = False) -> Iterator[Lease]:
    """Holds a folder against everybody else who would make the same run or study; yields the lease, which may be lost.

    Two processes make the same run by mistake only. The second one waits as long as the first may be ending, then it
    gives up, and the first goes on undisturbed. A folder that was made for the lock and holds nothing else at the end
    is removed.

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
        lease = Lease()
        try:
            if storage.local:
                lock = Path(storage.path("lock"))
                made = [folder for folder in lock.parents if not folder.exists()]
                stack.enter_context(exclusive(lock, waiting))
                stack.callback(_remove_empty, lock, made)  # while it is held
            else:
                lease = stack.enter_context(leased(storage, waiting))
        except TimeoutError:
            raise HeldError(
                f"{what} is being made by {holder}, in {storage.folder}",
                "wait for it, or end that process and give the command again; another name=… starts another one",
            ) from None
        yield lease


def _remove_empty(lock: Path, made: Sequence[Path]) -> None:
    """Removes a lock and the folders that were made for it, the innermost first, unless they hold more by now."""
    with suppress(OSError):
        if made and os.listdir(lock.parent) == [lock.name]:
            lock.unlink()
            for folder in made:
                folder.rmdir()
