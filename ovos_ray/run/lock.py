"""One run is trained by one process at a time: the lock in its folder, held by whoever makes it."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ovos_ray.errors import ResourceError
from ovos_ray.io import exclusive
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

__all__ = ["run_lock"]

_PATIENCE_HERE_S = 15.0
"""The processes of a driver that was killed end some seconds after it."""
_PATIENCE_ELSEWHERE_S = 120.0
"""A file server keeps the locks of a machine that is gone for up to 90 seconds."""


@contextmanager
def run_lock(request: RunRequest) -> Iterator[None]:
    """Holds the run's folder against everybody else who would train the same run.

    A shared run (a pretraining) is waited for, whoever trains it. Any other one is trained twice by mistake only: its
    lock is waited for as long as its holder may be dying, then this one gives up and the other goes on undisturbed.
    The kernel holds the lock: it ends with its process. A bucket has none.

    Args:
        request: The run; its watcher is told once whom it waits for.

    Raises:
        ResourceError: Another process trains it; says which.
    """
    folder = RunFolder.of(request.config)
    if not folder.storage.local:
        yield
        return
    holder = ""

    def waiting(who: str) -> float:
        nonlocal holder
        holder = who
        request.post(0, event=f"waiting: {who} trains it")
        here = who.endswith(f" on {platform.node()}")
        return math.inf if request.shared else _PATIENCE_HERE_S if here else _PATIENCE_ELSEWHERE_S

    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder.storage.path("lock"), waiting))
        except TimeoutError:
            raise ResourceError(
                f"{request.config.name} is being trained by {holder}, in {folder.storage.folder}",
                "wait for it, or end that process and give the command again; another name=… starts another run",
            ) from None
        yield
