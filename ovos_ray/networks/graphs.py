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
from typing import Any

import torch
from torch import Tensor

__all__ = ["Graphs", "send"]

Function = Callable[..., tuple[Tensor, ...]]

_log = logging.getLogger(__name__)

_WARM_UPS = 2  # in which cuDNN chooses its algorithms and libraries make their workspaces


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on a device, without waiting for the device where it is a GPU."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Graphs:
    """Functions captured for some shapes of their inputs.

    Args:
        limit: Graphs kept; beyond it the one that was not used for longest is dropped.
        calls_before: How often a shape comes before it is captured.

    Attributes:
        failed: Why nothing is captured any more, if a capture failed; functions are then simply called.
    """

    def __init__(self, limit: int = 8, calls_before: int = 0) -> None:
        self.limit, self.calls_before = limit, calls_before
        self.failed: str | None = None
        self._captured: dict[Hashable, _Captured] = {}
        self._calls = Counter[Hashable]()
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._captured)

    def __call__(self, key: Hashable, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns what the function returns for these inputs, without gradient.

        Args:
            key: Whatever else decides what the function does; with the shapes of its inputs it stands for a graph.
            function: From the inputs to tensors.
            *inputs: All on one device.

        Returns:
            Tensors that the next call overwrites.
        """
        if self.failed is not None:
            return function(*inputs)
        device = inputs[0].device
        key = (key, torch.is_inference_mode_enabled(), *((x.shape, x.dtype, x.stride(), x.device) for x in inputs))
        captured = self._captured.pop(key, None)
        if captured is None and self._calls[key] < self.calls_before:
            self._calls[key] += 1
            return function(*inputs)
        if captured is None:
            if device.type == "cuda" and self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            try:
                captured = _Captured(function, inputs, self._pool)
            except Exception as error:
                if device.type != "cuda":
                    raise
                self.failed = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                self._captured.clear()
                _log.warning("%s is computed without a CUDA graph, more slowly: %s", _name(function), self.failed)
                torch.cuda.synchronize(device)
                return function(*inputs)
            while len(self._captured) >= self.limit:
                del self._captured[next(iter(self._captured))]
        self._captured[key] = captured
        return captured(*inputs)


class _Captured:
    """One function for one shape of its inputs."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = [x.detach().clone() for x in inputs]
        self._graph: Any = None
        if not self._inputs[0].is_cuda:
            self._function = function
            return
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
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


def _name(function: Callable[..., Any]) -> str:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return getattr(function, "__qualname__", repr(function)).strip("_").replace("_", " ")
