"""Which steps made no update because loss or gradient was not finite, known without waiting at every step."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ovos_ray.errors import DivergedError

__all__ = ["SkippedSteps"]

_log = logging.getLogger(__name__)


class SkippedSteps:
    """Collects what the device says of each step, and reads it when it is asked.

    Args:
        limit: Steps in a row that may be skipped before a run is given up.

    Attributes:
        in_a_row: Steps skipped in a row, up to the last one that was read.
        steps: All steps skipped since this was made, up to the last one that was read.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.steps: list[int] = []
        self._unread: list[tuple[int, list[int], Tensor]] = []

    def add(self, step: int, positions: list[int], skipped: Tensor) -> None:
        """Adds a step, the positions of its samples, and whether it was skipped, which may not be known yet."""
        self._unread.append((step, positions, skipped))

    def read(self) -> None:
        """Waits for all steps so far, and logs those that were skipped.

        Raises:
            DivergedError: Too many in a row were.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        flags = torch.stack([skipped for _, _, skipped in unread]).tolist()
        for (step, positions, _), skipped in zip(unread, flags, strict=True):
            self.in_a_row = self.in_a_row + 1 if skipped else 0
            if not skipped:
                continue
            self.steps.append(step)
            _log.warning("step %d skipped: loss or gradient not finite, at positions %s", step, positions)
            if self.in_a_row >= self.limit:
                raise DivergedError(
                    f"loss or gradient was not finite in {self.in_a_row} steps in a row, the last one step {step} "
                    f"with positions {positions}",
                    "lower optimizer.learning_rate, set optimizer.clip_norm, or train.precision=float32",
                )
