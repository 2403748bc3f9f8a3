"""Something that is done every few seconds beside everything else, as heartbeats and lookouts are."""

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
    """Calls something in a thread of its own, again and again while the context is open.

    Args:
        action: What is done; first after `every_s` seconds.
        every_s: Seconds from one end to the next beginning.
        name: Of the thread.
        forgiving: Errors of `action` after which it is tried again at the next turn.
        until: Errors after one of which it is called no more; nobody else hears of it.
        waits: Whether a call that is under way is waited for at the end; one that may hang is not.
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
