"""The notice that this process is to end: the step under way is finished, and what is computed can be written down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EndingNotice", "heeding_sigterm"]


class EndingNotice:
    """Turns a SIGTERM, as `kill`, Slurm and Kubernetes send it, into a SystemExit, but never in the middle of a step.

    Attributes:
        given: Whether this process is to end.
    """

    def __init__(self) -> None:
        self.given = False
        self._in_step = False

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """A part that is not to be left half done."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
        if self.given:
            raise SystemExit(128 + signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.given or not self._in_step:  # a second signal does not wait for the step
            self.given = True
            raise SystemExit(128 + number)
        self.given = True


@contextmanager
def heeding_sigterm() -> Iterator[EndingNotice]:
    """Yields a notice that heeds SIGTERM while the context is open, in the main thread: others get no signals."""
    notice = EndingNotice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    before = signal.signal(signal.SIGTERM, notice._receive)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before)
