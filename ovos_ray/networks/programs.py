"""A network as three programs of `torch.export`, which run without this package; the memory stays outside.

| program | takes | gives |
|---|---|---|
| `encode` | image (1, 3, H, W) in [0, 1] | key, shrinkage, selection, normalised image, feature maps |
| `memorise` | what `encode` gave, masks (1, N, H, W), sensory memory | value, summary, sensory memory |
| `segment` | what `encode` gave, value and summary that were read, masks, sensory memory | logits (1, 1+N, H, W), \
masks, sensory memory |

What a family does not have is None. Reading the memory is a softmax over similarities, see `networks.memory`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovos_ray.errors import ConfigError
from ovos_ray.io import atomic_path
from ovos_ray.networks.base import FrameFeatures, Readout, State, VOSNetwork

__all__ = ["PROGRAMS", "export_programs"]

PROGRAMS = ("encode", "memorise", "segment")
_Features = tuple[Tensor, Tensor | None, Tensor | None, Tensor, tuple[Tensor, ...]]


class _Part(nn.Module):
    def __init__(self, network: VOSNetwork) -> None:
        super().__init__()
        self.network = network


class _Encode(_Part):
    def forward(self, image: Tensor) -> _Features:
        found = self.network.encode(image)
        return found.key, found.shrinkage, found.selection, found.image, found.maps


class _Memorise(_Part):
    def forward(self, features: _Features, masks: Tensor, sensory: Tensor | None) -> tuple[Tensor | None, ...]:
        state = State(masks=masks, sensory=sensory)
        frame, state = self.network.memorise(_features(features), state, deep_update=True)
        return frame.value, frame.summary, state.sensory


class _Segment(_Part):
    def forward(
        self, features: _Features, value: Tensor, summary: Tensor | None, masks: Tensor, sensory: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        readout, state = Readout(value=value, summary=summary), State(masks=masks, sensory=sensory)
        logits, state = self.network.segment(_features(features), readout, state)
        return logits, state.masks, state.sensory


def _features(given: _Features) -> FrameFeatures:
    key, shrinkage, selection, image, maps = given
    return FrameFeatures(key=key, shrinkage=shrinkage, selection=selection, image=image, maps=maps)


def export_programs(network: VOSNetwork, path: Path, *, size: tuple[int, int], num_objects: int) -> list[Path]:
    """Writes the programs of a network as NAME.encode.pt2, NAME.memorise.pt2 and NAME.segment.pt2.

    Args:
        network: The network, on the CPU; it is put into evaluation mode, its weights laid out row after row.
        path: NAME.pt2.
        size: (height, width) of the frames, multiples of the network's stride.
        num_objects: N; as fixed as the size.

    Raises:
        ConfigError: The size or number cannot be.
    """
    if any(side < 1 or side % network.stride for side in size) or num_objects < 1:
        raise ConfigError(
            f"programs for {size[0]}x{size[1]} pixels and {num_objects} objects",
            f"both sides must be multiples of {network.stride}, and there must be an object",
        )
    # Saved weights in another layout are warned about.
    network.eval().to(memory_format=torch.contiguous_format)
    image, state = torch.rand(1, 3, *size), network.start(torch.rand(1, num_objects, *size))
    with torch.no_grad():
        features = _Encode(network)(image)
        value, summary, _ = _Memorise(network)(features, state.masks, state.sensory)
        parts: dict[str, tuple[_Part, tuple[Any, ...]]] = {
            "encode": (_Encode(network), (image,)),
            "memorise": (_Memorise(network), (features, state.masks, state.sensory)),
            "segment": (_Segment(network), (features, value, summary, state.masks, state.sensory)),
        }
        written = []
        for name in PROGRAMS:
            part, inputs = parts[name]
            buffer = io.BytesIO()
            torch.export.save(torch.export.export(part, inputs, strict=False), buffer)
            written.append(path.with_suffix(f".{name}.pt2"))
            with atomic_path(written[-1]) as temporary:
                temporary.write_bytes(buffer.getvalue())
    return written
