"""Every random draw is a function of (seed, position, purpose), never of a global generator.

`position` is a sample's place in the plan, or the optimiser step for draws that a whole batch shares. Two draws with
different purposes are independent, so adding a new kind of draw leaves all others as they were.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["BatchRng", "generator", "integer_seed"]


def generator(seed: int, position: int, purpose: str) -> np.random.Generator:
    """Returns the generator that belongs to (seed, position, purpose); the same on every platform and worker."""
    entropy = (int(seed), int(position), zlib.crc32(purpose.encode()))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def integer_seed(seed: int, position: int, purpose: str) -> int:
    """Returns a 63-bit seed for libraries that want an integer, such as `torch.Generator.manual_seed`."""
    return int(generator(seed, position, purpose).integers(2**63))


@dataclass(frozen=True)
class BatchRng:
    """The draws of one batch.

    Attributes:
        shared: Draws made once for the whole global batch (T1, deep updates); equal on every rank.
        per_sample: One generator a sample (reference frames, points), a function of the sample's position alone,
            so that it does not matter how the global batch is split over workers.
    """

    shared: np.random.Generator
    per_sample: tuple[np.random.Generator, ...]

    @classmethod
    def of(cls, rng: np.random.Generator | BatchRng | None, positions: Sequence[int]) -> BatchRng:
        """Makes the draws of a batch from one generator that all ranks hold in the same state.

        Args:
            rng: A generator seeded by (seed, step, purpose). None stands for a fixed one. A BatchRng passes through.
            positions: The samples' positions in the plan, or 0 … B-1 where there is no plan.
        """
        if isinstance(rng, BatchRng):
            return rng
        shared = rng if rng is not None else generator(0, 0, "default")
        salt = int(shared.integers(2**63))
        return cls(shared, tuple(generator(salt, int(p), "sample") for p in positions))
