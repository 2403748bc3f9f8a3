"""Reading ahead and writing behind, so that whoever computes never waits for files."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["ReadAhead", "WholeFolder"]

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


class WholeFolder:
    """A folder of files, written by threads, that appears under its name when all of them are there.

    What a killed process left of it is removed. Its own parts have a name of their own, so that a worker which outlives
    its killed driver for a moment writes into nobody else's folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="write-behind")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> WholeFolder:
        for left in self._path.parent.glob(f".{glob.escape(self._path.name)}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def write(self, name: str, encode: Callable[..., bytes], *arguments: Any) -> None:
        """Encodes and writes a file in the background; waits where too many are pending."""
        while len(self._pending) > 2 * _AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, name, encode, arguments))

    def _write(self, name: str, encode: Callable[..., bytes], arguments: tuple[Any, ...]) -> None:
        (self._partial / name).write_bytes(encode(*arguments))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                while self._pending:
                    self._pending.popleft().result()
                shutil.rmtree(self._path, ignore_errors=True)
                os.replace(self._partial, self._path)
        finally:
            self._pool.shutdown(cancel_futures=True)
            shutil.rmtree(self._partial, ignore_errors=True)
