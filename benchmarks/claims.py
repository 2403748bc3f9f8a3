"""Does a study bear out a claim? Differences paired over videos and seeds, their intervals, and a verdict in a word.

A claim says that a mean difference is at least some bound. It is *reproduced* where the whole 95 % interval is at or
above the bound, *contradicted* where the whole interval is below it, and *inconclusive* otherwise. Three seeds say
little about seeds: `Interval` holds the interval over seeds alone beside the one over videos and seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ovos_ray.seeding import generator

__all__ = ["Interval", "Verdict", "difference", "interval", "judge"]

Verdict = Literal["reproduced", "contradicted", "inconclusive"]
Scores = Mapping[int, Mapping[str, float]]
"""From seed to video to score."""

_RESAMPLES = 10_000
_T_97_5 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 1, 2, … degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % intervals.

    Attributes:
        mean: Over videos and seeds.
        low: Lower end over videos and seeds: both are drawn anew, with replacement (crossed bootstrap, percentiles).
        high: Upper end.
        seeds: Half the width of Student's interval over the seeds' means, which takes the videos as given; None for
            fewer than two seeds.
        num_seeds: Seeds.
        num_videos: Videos.
    """

    mean: float
    low: float
    high: float
    seeds: float | None
    num_seeds: int
    num_videos: int

    def __str__(self) -> str:
        over_seeds = "" if self.seeds is None else f"; over seeds ±{self.seeds:.1f}"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]{over_seeds}"


def interval(values: npt.NDArray[np.float64]) -> Interval:
    """Returns the mean of values (seeds, videos) and its intervals."""
    num_seeds, num_videos = values.shape
    rng = generator(0, values.size, "bootstrap over videos and seeds")
    seeds = rng.integers(0, num_seeds, (_RESAMPLES, num_seeds, 1))
    videos = rng.integers(0, num_videos, (_RESAMPLES, 1, num_videos))
    low, high = np.percentile(values[seeds, videos].mean((1, 2)), [2.5, 97.5])
    by_seed = values.mean(1).tolist()
    over_seeds = None
    if 2 <= num_seeds <= len(_T_97_5) + 1:
        over_seeds = _T_97_5[num_seeds - 2] * statistics.stdev(by_seed) / num_seeds**0.5
    return Interval(float(values.mean()), float(low), float(high), over_seeds, num_seeds, num_videos)


def difference(one: Scores, other: Scores) -> npt.NDArray[np.float64]:
    """Returns `one` minus `other`, (seeds, videos), over the seeds and videos that both have."""
    seeds = sorted(one.keys() & other.keys())
    videos = sorted(set.intersection(*(set(scores[seed]) for scores in (one, other) for seed in seeds)))
    return np.array([[one[seed][video] - other[seed][video] for video in videos] for seed in seeds])


def judge(found: Interval, at_least: float) -> Verdict:
    """Returns whether a mean is shown to be at least `at_least`, or below it, or neither."""
    if found.low >= at_least:
        return "reproduced"
    return "contradicted" if found.high < at_least else "inconclusive"
