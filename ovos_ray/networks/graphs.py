"""CUDA graphs: a function of tensors whose many small kernels are launched at once.

On a GPU the thread that launches kernels is what small ones wait for. A graph is captured once for each shape of its
inputs: they are copied into tensors of its own, and what was captured is computed anew from these. So a function that
is captured may neither wait for the device nor depend on anything but its inputs and on tensors that stay where they
are, such as weights. On a CPU the same function is called with the same copies, so that all but the capture is tested
there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

__all__ = ["Graphs", "send"]

Function = Callable[..., tuple[Tensor, ...]]

_log = logging.getLogger(__name__)

_FAILURES = 3
"""Captures that fail, when none has succeeded, after which none is tried: then it is not for a shape."""
_WARM_UPS = 2  # in which cuDNN chooses its algorithms and libraries make their workspaces


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on a device, without waiting for the device where it is a GPU."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Graphs:
    """Functions captured for some shapes of their inputs.

    A shape whose capture failed is computed by calling the function. So is, at first, one that comes back after its
    graph was dropped; each time it takes ten times as many calls until it is captured again, so that captures stay few.

    Args:
        limit: Graphs kept; beyond it the one that was not used for longest is dropped.
        calls_before: How often a shape comes before it is captured.

    Attributes:
        captures: Captures so far.
    """

    def __init__(self, limit: int = 8, calls_before: int = 0) -> None:
        self.limit, self.calls_before = limit, calls_before
        self.captures = 0
        self._captured: dict[Hashable, _Captured] = {}
        self._calls = Counter[Hashable]()
        self._dropped = Counter[Hashable]()
        self._failures: dict[Hashable, str] = {}
        self._refusal = ""
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._captured)

    @property
    def failed(self) -> str | None:
        """What was computed without a graph although there were to be graphs, and why; None: nothing."""
        reasons = "; ".join(dict.fromkeys(self._failures.values()))
        number = "all" if self._hopeless else f"{len(self._failures)} of {len(self._failures) + self.captures}"
        dropped = f"there were more shapes than the {self.limit} graphs that are kept"
        found = [
            self._refusal,
            f"{number} captures failed: {reasons}" if reasons else "",
            dropped if self._dropped else "",
        ]
        return "; ".join(filter(None, found)) or None

    def refuse(self, why: str) -> None:
        """Says why what could be a graph is none."""
        self._refusal = why

    def __call__(self, key: Hashable, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns what the function returns for these inputs, without gradient.

        Args:
            key: Whatever else decides what the function does; with the shapes of its inputs it stands for a graph.
            function: From the inputs to tensors.
            *inputs: All on one device.

        Returns:
            Tensors that the next call overwrites.
        """
        key = (key, torch.is_inference_mode_enabled(), *((x.shape, x.dtype, x.stride(), x.device) for x in inputs))
        captured = self._captured.pop(key, None)
        if captured is None and self._is_due(key):
            captured = self._capture(key, function, inputs)
        if captured is None:
            return function(*inputs)
        self._captured[key] = captured
        return captured(*inputs)

    def pool_bytes(self) -> int:
        """Returns how much of a GPU's memory graphs keep between replays, while no tensor uses it."""
        segments = [] if not self.captures or self._pool is None else torch.cuda.memory_snapshot()
        pools = [segment for segment in segments if tuple(segment["segment_pool_id"]) != (0, 0)]
        return int(sum(segment["total_size"] - segment["allocated_size"] for segment in pools))

    @property
    def _hopeless(self) -> bool:
        return not self.captures and len(self._failures) >= _FAILURES

    def _is_due(self, key: Hashable) -> bool:
        if key in self._failures or self._hopeless:
            return False
        dropped = self._dropped[key]
        self._calls[key] += 1
        return self._calls[key] > (max(1, self.calls_before) * 10**dropped if dropped else self.calls_before)

    def _capture(self, key: Hashable, function: Function, inputs: tuple[Tensor, ...]) -> _Captured | None:
        device = inputs[0].device
        if device.type == "cuda" and self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        del self._calls[key]
        try:
            captured = _Captured(function, inputs, self._pool)
        except Exception as error:
            self._failures[key] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            _log.warning("%s is computed without a CUDA graph, more slowly: %s", _name(function), self.failed)
            if device.type == "cuda":
                _leave(self._pool)
                self._pool = None
            return None
        self.captures += 1
        while len(self._captured) >= self.limit:
            oldest = next(iter(self._captured))
            del self._captured[oldest]
            self._dropped[oldest] += 1
        return captured


class _Captured:
    """One function for one shape of its inputs."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = [x.detach().clone() for x in inputs]
        self._graph: Any = None
        if not self._inputs[0].is_cuda:
            self._function = function
            return
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)
        self._graph = graph

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_(self._inputs, list(inputs))
        if self._graph is None:
            return self._function(*self._inputs)
        self._graph.replay()
        return self._outputs


def _leave(pool: Any) -> None:
    """Gives a GPU back to eager code after a capture that failed.

    In some versions of PyTorch an invalid capture leaves the allocator in it: no other may use its pool, and what other
    streams have used is never given back.
    """
    with suppress(RuntimeError, AttributeError):  # it has left, or this version has no such thing
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # what was taken until it failed


def _name(function: Callable[..., Any]) -> str:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return getattr(function, "__qualname__", repr(function)).strip("_").replace("_", " ")
