"""Confidence intervals of a mean over seeds and sequences, and of the difference of two, that hold with three seeds.

A score varies with the seed and with the sequence. Each source has its own Student's interval, and the squares of their
half-widths add up (Burdick and Graybill, Confidence Intervals on Variance Components, 1992). A bootstrap over three
seeds covers 80 to 90 % where it says 95; this covers 94 % and more (`tests/report/test_intervals.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovos_ray.arrays import FloatArray
from ovos_ray.errors import MissingExtraError

__all__ = ["Interval", "holm", "interval", "statistical_tests"]


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of two, with what it would vary by.

    Attributes:
        mean: The estimate.
        parts: Estimated variance of the mean from each source, with its degrees of freedom.
        num_seeds: Seeds behind it, the fewer of two; with one, the interval is over sequences alone.
        num_sequences: Sequences behind it.
    """

    mean: float
    parts: tuple[tuple[float, int], ...]
    num_seeds: int
    num_sequences: int

    @property
    def low(self) -> float:
        """Lower end at 95 %."""
        return self.mean - self.half_width(0.05)

    @property
    def high(self) -> float:
        """Upper end at 95 %."""
        return self.mean + self.half_width(0.05)

    def half_width(self, p: float) -> float:
        """Returns half the width of the interval that misses the truth with probability p."""
        t = statistical_tests().t
        return math.sqrt(sum(float(t.isf(p / 2, degrees)) ** 2 * variance for variance, degrees in self.parts))

    def p(self, bound: float = 0.0) -> float:
        """Returns the p, two-sided, at which the interval just reaches a bound."""
        low, high, distance = 0.0, 1.0, abs(self.mean - bound)
        for _ in range(40):  # bisection: half the width falls from infinity to 0 as p rises
            middle = (low + high) / 2
            low, high = (middle, high) if self.half_width(middle) > distance else (low, middle)
        return high

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def interval(one: FloatArray, other: FloatArray | None = None, weights: FloatArray | None = None) -> Interval:
    """Returns the mean of `one`, or of `one` minus `other`, with its interval.

    Seeds of two configurations are independent of each other; sequences are the same, and paired.

    Args:
        one: (S, V) scores by seed and sequence; S = 1 where there is one seed, or no randomness.
        other: The same of another configuration on the same sequences, with seeds of its own.
        weights: (V,) what each sequence counts, such as its number of objects; None: all the same.
    """
    num_sequences = one.shape[1]
    share = np.ones(num_sequences) if weights is None else num_sequences * weights / weights.sum()
    # Weighted, a sequence's part in the mean stands for its score: the plain mean of these is the weighted mean.
    scores = [(m := (x.mean(0) * share).mean()) + share * (x - m) for x in (one, other) if x is not None]
    by_sequence = scores[0].mean(0) - (scores[1].mean(0) if other is not None else 0.0)
    parts = [(x.mean(1).var(ddof=1) / len(x), len(x) - 1) for x in scores if len(x) > 1]
    if num_sequences > 1:
        parts.append((by_sequence.var(ddof=1) / num_sequences, num_sequences - 1))
    found = tuple((float(variance), degrees) for variance, degrees in parts)
    return Interval(float(by_sequence.mean()), found, min(map(len, scores)), num_sequences)


def holm(values: list[float]) -> list[float]:
    """Returns the p of comparisons that were made together, corrected after Holm."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = largest
    return corrected


def statistical_tests() -> Any:
    """Returns `scipy.stats`.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        import scipy.stats
    except ImportError as error:
        raise MissingExtraError("scipy", "report", "testing differences") from error
    return scipy.stats
