"""The notice that this process is to end: the step under way is finished, and what is computed can be written down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EndingNotice", "heeding_signals"]


class EndingNotice:
    """Turns a signal to end into an exception, but never in the middle of a step: the first one waits until it is made.

    SIGTERM, as `kill`, Slurm and Kubernetes send it, becomes a SystemExit; SIGINT, which is Ctrl-C, a
    KeyboardInterrupt.

    Attributes:
        given: Whether this process is to end.
        cut: Whether a step was left half done, as a second signal came in it.
    """

    def __init__(self) -> None:
        self.given = self.cut = False
        self._in_step = False
        self._signal = signal.SIGTERM

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """A part that is not to be left half done."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
        if self.given:
            self._end()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.cut = self.given and self._in_step
        self.given, self._signal = True, signal.Signals(number)
        if self.cut or not self._in_step:
            self._end()

    def _end(self) -> None:
        raise KeyboardInterrupt if self._signal == signal.SIGINT else SystemExit(128 + self._signal)


@contextmanager
def heeding_signals(*numbers: signal.Signals) -> Iterator[EndingNotice]:
    """Yields a notice that heeds signals while the context is open, in the main thread: others get none.

    Args:
        numbers: The signals. Ctrl-C is left to whoever ignores it, or has a handler of their own.
    """
    notice = EndingNotice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    ctrl_c_is_free = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    heeded = [number for number in numbers if ctrl_c_is_free or number != signal.SIGINT]
    before = {number: signal.signal(number, notice._receive) for number in heeded}
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
