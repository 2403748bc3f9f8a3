"""Samples that could not be read: of all ranks and all launches of a run, and how many of them are too many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.distributed

from ovos_ray.config import DataConfig
from ovos_ray.errors import DataError

__all__ = ["BadSamples"]

Problem = tuple[int, str]
"""A position of the plan, and what is wrong with its sample."""


class BadSamples:
    """The samples that a run with `data.on_bad_row="skip"` went on without.

    Args:
        data: The data part of the configuration.
        known: Those of earlier launches, from the checkpoint that the run goes on from.
    """

    def __init__(self, data: DataConfig, known: Iterable[Sequence[object]] = ()) -> None:
        self._data = data
        self._problems = {int(str(position)): str(what) for position, what in known}

    def __len__(self) -> int:
        return len(self._problems)

    def as_list(self) -> list[list[int | str]]:
        """Returns position and problem of each, in order, for checkpoint and result."""
        return [[position, what] for position, what in sorted(self._problems.items())]

    def gather(self, own: Iterable[Problem], steps: int, world_size: int) -> None:
        """Adds what each rank has met so far; every rank calls it, and all know the same afterwards.

        Args:
            own: What this rank's stream has met, which may be some steps ahead.
            steps: Optimiser steps done, since the beginning of the run.
            world_size: How many ranks call this together.

        Raises:
            DataError: They are more than `data.max_bad_fraction` of all samples.
        """
        if self._data.on_bad_row == "error":  # the first has ended the run
            return
        parts: list[list[Problem]] = [list(own)]
        if world_size > 1:
            parts *= world_size
            torch.distributed.all_gather_object(parts, list(own))
        seen = steps * self._data.batch_size
        self._problems |= {position: what for part in parts for position, what in part if position < seen}
        # One bad sample must not stop a short run, whatever the fraction.
        if len(self) > max(1.0, self._data.max_bad_fraction * seen):
            listing = "; ".join(f"position {position}: {what}" for position, what in self.as_list()[-3:])
            raise DataError(
                f"{len(self)} of {seen} samples could not be read, more than data.max_bad_fraction = "
                f"{self._data.max_bad_fraction} allows ({listing})",
                "`ovos-ray verify SHARDS` lists every bad row; pack the dataset again",
            )
