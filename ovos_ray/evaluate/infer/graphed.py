"""A network whose parts are launched as CUDA graphs, for videos: frames of one size come one after another.

The read of the memory is no graph: its size changes, and it is few kernels. All graphs share one pool of GPU memory, so
that one may overwrite what another has returned. Therefore what is kept is copied, and no other frame is encoded
between an `encode` and the calls that use its maps. On a CPU, parts are called with copies of their inputs, as
`networks.graphs` says, so that all but the capture is tested there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ovos_ray.networks.base import FrameFeatures, MemoryFrame, Readout, State, VOSNetwork
from ovos_ray.networks.graphs import Graphs

__all__ = ["GraphedNetwork"]

# Videos of many sizes and numbers of objects are not worth a capture each time these change.
_CALLS_BEFORE = 3
_GRAPHS = 24


class GraphedNetwork:
    """Stands for a network at test time: encodes, memorises and segments as it does.

    Args:
        network: In evaluation mode; it may be given new weights, but not be moved.
        calls_before: How often a shape is computed without a graph before one is captured.
    """

    def __init__(self, network: VOSNetwork, calls_before: int = _CALLS_BEFORE) -> None:
        self.network = network
        self.graphs = Graphs(limit=_GRAPHS, calls_before=calls_before)
        self._results: dict[Any, Any] = {}
        self.stride, self.padding_colour = network.stride, network.padding_colour
        self.start, self.extend = network.start, network.extend

    def encode(self, images: Tensor) -> FrameFeatures:
        """See `VOSNetwork.encode`; maps and image hold until the next call."""
        found: FrameFeatures = self._call("encode", {}, images)
        # These are kept in memory.
        shrinkage, selection = (None if x is None else x.clone() for x in (found.shrinkage, found.selection))
        return replace(found, key=found.key.clone(), shrinkage=shrinkage, selection=selection)

    def memorise(
        self, features: FrameFeatures, state: State, *, deep_update: bool = False
    ) -> tuple[MemoryFrame, State]:
        """See `VOSNetwork.memorise`."""
        options = {"deep_update": deep_update}
        found: tuple[MemoryFrame, State] = _map(self._call("memorise", options, features, state), Tensor.clone)
        return found

    def segment(
        self, features: FrameFeatures, readout: Readout, state: State, *, update_sensory: bool = True
    ) -> tuple[Tensor, State]:
        """See `VOSNetwork.segment`."""
        options = {"update_sensory": update_sensory}
        found: tuple[Tensor, State] = _map(self._call("segment", options, features, readout, state), Tensor.clone)
        return found

    def _call(self, method: str, options: dict[str, Any], *arguments: Any) -> Any:
        tensors = list(_tensors(arguments))
        kind = tensors[0].device.type
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (method, *options.values(), lower, *(x is None for x in _tensors(arguments, empty=True)))
        template = _map(arguments, lambda x: x.new_empty(0))

        def function(*inputs: Tensor) -> tuple[Tensor, ...]:
            given = iter(inputs)
            # A cast weight that was kept outside would be gone when the graph reads it.
            with torch.autocast(kind, dtype=lower, enabled=lower is not None, cache_enabled=False):
                result = getattr(self.network, method)(*_map(template, lambda _: next(given)), **options)
            self._results[key] = result
            return tuple(_tensors(result))

        outputs = iter(self.graphs(key, function, *tensors))
        return _map(self._results[key], lambda _: next(outputs))


def _tensors(value: Any, *, empty: bool = False) -> Iterator[Any]:
    """Yields the tensors of nested tuples and of the protocol's dataclasses, in order."""
    if isinstance(value, Tensor) or (value is None and empty):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item, empty=empty)
    elif value is not None:
        yield from _tensors(tuple(vars(value).values()), empty=empty)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Returns the same structure with every tensor replaced."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_map(item, function) for item in value)
    return type(value)(**{name: _map(item, function) for name, item in vars(value).items()})
