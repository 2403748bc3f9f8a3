"""Batches on their way to a GPU: pinned by a thread, copied on a stream of their own, one ahead of the step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["on_device", "one_ahead"]

# What the host has to know of a batch: draws belong to positions, and what is computed follows from the objects.
_KNOWN_BY_HOST = ("labelled", "num_objects", "position", "weight")

_From = TypeVar("_From")
_To = TypeVar("_To")


def on_device(batches: Iterable[Mapping[str, Tensor]], device: torch.device) -> Generator[dict[str, Tensor]]:
    """Yields batches whose frames and labels are on a device; what the host has to know of them stays on the CPU.

    While one batch is trained on, the next is pinned and copied, so that neither the GPU nor the training thread waits.
    On a CPU batches stay where they are, and none is taken before it is asked for.
    """
    if device.type != "cuda":
        for batch in batches:
            yield {name: value.to(device) for name, value in batch.items()}
        return
    stream: Any = torch.cuda.Stream(device)

    def send(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Any]:
        sent = dict(batch)
        with torch.cuda.stream(stream):
            for name in batch.keys() - set(_KNOWN_BY_HOST):
                sent[name] = batch[name].pin_memory().to(device, non_blocking=True)
            return sent, stream.record_event()

    for sent, copied in one_ahead(batches, send):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for name in sent.keys() - set(_KNOWN_BY_HOST):
            sent[name].record_stream(current)
        yield sent


def one_ahead(items: Iterable[_From], send: Callable[[_From], _To]) -> Generator[_To]:
    """Yields what `send` makes of each item, in a thread that is one item ahead of the one that is asked for.

    Items are taken by the thread that asks, since what they come from must be closed there. Where they end in an error,
    the last one that came is yielded before it is raised.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="copies") as pool:
        ready: Future[_To] | None = None
        ended: Exception | None = None
        while ended is None:
            coming: Future[_To] | None = None
            try:
                coming = pool.submit(send, next(iterator))
            except Exception as error:
                ended = error
            if ready is not None:
                yield ready.result()
            ready = coming
    if not isinstance(ended, StopIteration):
        raise ended
