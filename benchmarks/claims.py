"""Does a study bear out a claim? Differences paired over videos and seeds, their intervals, and a verdict in a word.

A claim says that a mean difference is at least some bound. It is *reproduced* where the mean is above the bound and
*not reached at this budget* where it is below, each only if chance is ruled out at 5 % for all claims together (Holm);
else *inconclusive*. *Contradicted* needs the budget that the claim speaks of. Intervals are those of the report
(`ovos_ray.report.numbers.intervals`): over seeds and videos, and with three seeds as wide as three seeds leave them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ovos_ray.report.numbers.intervals import Interval, holm, interval

__all__ = ["Interval", "Verdict", "difference", "interval", "judge"]

Verdict = Literal["reproduced", "not reached at this budget", "contradicted", "inconclusive"]
Scores = Mapping[int, Mapping[str, float]]
"""From seed to video to score."""

_LEVEL = 0.05


def difference(one: Scores, other: Scores) -> npt.NDArray[np.float64]:
    """Returns `one` minus `other`, (seeds, videos), over the seeds and videos that both have."""
    seeds = sorted(one.keys() & other.keys())
    videos = sorted(set.intersection(*(set(scores[seed]) for scores in (one, other) for seed in seeds)))
    return np.array([[one[seed][video] - other[seed][video] for video in videos] for seed in seeds])


def judge(claims: Sequence[tuple[Interval, float]], *, at_the_papers_budget: bool = False) -> list[Verdict]:
    """Returns whether each mean is shown to be at least its bound, or below it, or neither; corrected together.

    Args:
        claims: (mean with its interval, bound).
        at_the_papers_budget: Whether the runs had the steps that the claims speak of.
    """
    below: Verdict = "contradicted" if at_the_papers_budget else "not reached at this budget"
    corrected = holm([found.p(bound) for found, bound in claims])
    return [
        "inconclusive" if p > _LEVEL else "reproduced" if found.mean >= bound else below
        for (found, bound), p in zip(claims, corrected, strict=True)
    ]
