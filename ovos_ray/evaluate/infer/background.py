"""Reading ahead and writing behind, so that whoever computes never waits for files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovos_ray.io import whole_folder

__all__ = ["ReadAhead", "written_behind"]

_AHEAD = 8


class ReadAhead:
    """Iterates in a thread that stays a few items ahead: `with ReadAhead(items) as ahead: for item in ahead`."""

    def __init__(self, items: Iterable[Any], depth: int = _AHEAD) -> None:
        self._items, self._depth = iter(items), depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def __enter__(self) -> Iterator[Any]:
        end = object()
        ahead = deque(self._pool.submit(next, self._items, end) for _ in range(self._depth))

        def iterate() -> Iterator[Any]:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(self._pool.submit(next, self._items, end))
                yield item

        return iterate()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def written_behind(path: Path, kind: str, marker: Path, note: str) -> Iterator[Callable[..., None]]:
    """Yields `write(name, encode, *arguments)` for the files of a folder, which appears when all of them are there.

    Two threads encode and sync the files; where too many are pending, `write` waits.

    Args:
        path: The folder.
        kind: What it holds; see `whole_folder`.
        marker: Where its marker lies.
        note: What the marker says when the folder is whole.

    Raises:
        DataError: There is a folder that this program did not make.
    """
    with whole_folder(path, kind, marker=marker, note=note) as folder, ThreadPoolExecutor(2, "write-behind") as pool:
        pending: deque[Future[None]] = deque()

        def write_now(name: str, encode: Callable[..., bytes], arguments: tuple[Any, ...]) -> None:
            with open(folder / name, "wb") as file:
                file.write(encode(*arguments))
                file.flush()
                os.fsync(file.fileno())  # here, where nobody waits for it

        def write(name: str, encode: Callable[..., bytes], *arguments: Any) -> None:
            while len(pending) > 2 * _AHEAD:
                pending.popleft().result()
            pending.append(pool.submit(write_now, name, encode, arguments))

        try:
            yield write
            while pending:
                pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
