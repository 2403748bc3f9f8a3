"""A function called every few seconds in a thread: heartbeats, and looks at what others do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["repeating"]


@contextmanager
def repeating(
    action: Callable[[], None],
    every_s: float,
    name: str,
    *,
    forgiving: type[Exception],
    until: tuple[type[Exception], ...] = (),
    waits: bool = True,
) -> Iterator[None]:
    """Calls a function again and again in a thread of its own, as long as the context is open.

    Args:
        action: The function; called first after `every_s` seconds.
        every_s: Seconds from the end of a call to the beginning of the next.
        name: Of the thread.
        forgiving: Errors of `action` after which it is tried again at the next turn.
        until: Errors of `action` after which it is not called again; they are raised nowhere.
        waits: Whether the end of the context waits for a call that is under way; say False of one that may hang.
    """
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(every_s):
            try:
                action()
            except until:
                return
            except forgiving:
                continue

    thread = threading.Thread(target=follow, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if waits:
            thread.join()
