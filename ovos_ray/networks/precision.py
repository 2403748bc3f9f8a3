"""Which parts of a network are computed in full precision, whatever the autocast around them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(x: Tensor) -> Tensor:
    """Returns `x` in float32, or as it is if it has more (float64 networks: gradient checks, exact comparisons)."""
    return x if x.dtype == torch.float64 else x.float()
