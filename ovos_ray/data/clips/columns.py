"""The columns of decoded samples become the tensors of a batch, alike for every stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["NO_LABEL", "batch_of"]

NO_LABEL = 255
"""What the label of a frame is filled with where the shards hold none."""


def batch_of(columns: Mapping[str, npt.NDArray[Any]], *, copy: bool = False) -> dict[str, Tensor]:
    """Returns a batch: `label` (B, S, S) of the reference frames, and `labels` (B, L, S, S) of them or of all frames.

    Args:
        columns: From `decode.stack`.
        copy: Whether the tensors need memory of their own.
    """
    batch = {
        name: torch.from_numpy(np.array(column) if copy else column)
        for name, column in columns.items()
        if name != "problem"
    }
    batch["label"] = batch["labels"][:, 0]
    # A label that is not there fills all of its frame.
    if bool((batch["labels"][:, :, 0, 0] == NO_LABEL).any()):
        batch["labels"] = batch["labels"][:, :1]
    return batch
