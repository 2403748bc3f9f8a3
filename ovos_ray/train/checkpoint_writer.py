"""Checkpoints written in a thread beside the training, which waits for the copy of its state, not for the storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from ovos_ray.train.checkpoint import CheckpointStore

__all__ = ["CheckpointWriter"]

_SMALL_BYTES = 32 * 2**20
"""What is smaller (the tiny networks') is written in less time than a step beside it would lose."""


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of its own. A process that ends waits for the one under way.

    Args:
        store: Where they go.
        step: Where the run stands.
        before: Called before each is written; raises an error where it must not be.

    Attributes:
        step: Of the last one that was started.
    """

    def __init__(self, store: CheckpointStore, step: int = 0, *, before: Callable[[], None] | None = None) -> None:
        self._store, self._before = store, before
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[str] | None = None
        self.step = step

    def start(self, step: int, state: Mapping[str, Any], *, keep_step: int | None = None) -> bool:
        """Copies the state as it is now, once the checkpoint before is written, and begins to write it.

        Args:
            step: Optimiser steps done.
            state: See `CheckpointStore.save`; may change as soon as this returns.
            keep_step: See there.

        Returns:
            Whether it is large enough to train on while it is written; a small one is best waited for.

        Raises:
            OSError: What went wrong with the checkpoint before, if nobody has asked yet.
        """
        self.wait()
        copied = _copied(dict(state))
        self._writing = self._pool.submit(self._save, step, copied, keep_step)
        self.step = step
        return _bytes(copied) > _SMALL_BYTES

    def _save(self, step: int, state: Mapping[str, Any], keep_step: int | None) -> str:
        if self._before is not None:
            self._before()
        return self._store.save(step, state, keep_step=keep_step)

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Waits for the checkpoint under way.

        Raises:
            OSError: It could not be written; earlier ones are untouched. Raised once.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits for the checkpoint under way, whatever becomes of it."""
        self._pool.shutdown()


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, inner))


def _copied(value: Any) -> Any:
    """Returns tensors, dicts and lists of them in memory that no training step writes to."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value
