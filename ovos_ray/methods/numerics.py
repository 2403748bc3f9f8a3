"""How the two propagations of a step are computed; none of it changes what they mean."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ovos_ray.networks.graphs import Graphs

__all__ = ["Numerics"]


@dataclass(frozen=True)
class Numerics:
    """Precision and memory of a step.

    Attributes:
        autocast: Lower precision of what carries gradient; None: that of the weights.
        rollout: Lower precision of the forward roll-out, which carries none.
        recompute: Recompute each frame of the propagation with gradient instead of storing its activations.
        graphs: Where the forward roll-out is captured and launched as one; None: it is computed kernel by kernel.
    """

    autocast: torch.dtype | None = None
    rollout: torch.dtype | None = None
    recompute: bool = False
    graphs: Graphs | None = None

    # Autocast keeps its cast weights until the outermost context ends, and weights cast under no_grad have no
    # gradient: the roll-out needs a context of its own, beside the others and not inside.

    def for_gradient(self, device: torch.device) -> AbstractContextManager[object]:
        """Returns the context of what carries gradient; enter it anew for each part."""
        return _autocast(device, self.autocast)

    def for_rollout(self, device: torch.device) -> AbstractContextManager[object]:
        """Returns the context of the forward roll-out."""
        return _autocast(device, self.rollout)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
