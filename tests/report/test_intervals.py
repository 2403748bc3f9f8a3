"""Intervals hold the truth as often as they say, also with three seeds."""

from __future__ import annotations

import numpy as np
import pytest

from ovos_ray.report.numbers.intervals import holm, interval
from ovos_ray.seeding import generator

STUDIES = 1500


def made_up(rng: np.random.Generator, seeds: int, videos: int, spread: tuple[float, float, float]) -> np.ndarray:
    """Scores (S, V) that vary with the seed, with the video, and with both, around 0."""
    by_seed, by_video, both = spread
    return (
        by_seed * rng.normal(size=(seeds, 1))
        + by_video * rng.normal(size=(1, videos))
        + both * rng.normal(size=(seeds, videos))
    )


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(("videos", "spread"), [(8, (3, 1, 1)), (20, (1, 1, 1)), (20, (2, 2, 0.3)), (30, (0, 3, 1))])
def test_intervals_cover_the_truth(num_seeds: int, videos: int, spread: tuple[float, float, float]) -> None:
    rng = generator(0, num_seeds, "coverage")
    found = [interval(made_up(rng, num_seeds, videos, spread)) for _ in range(STUDIES)]
    # 1,500 studies tell a coverage to about half a percent.
    assert np.mean([one.low <= 0 <= one.high for one in found]) >= 0.93
    # And they are not so wide as to say nothing: a bias of four deviations of a seed or video shows in most.
    bias = 4 * max(spread) * (1 if num_seeds == 3 else 0.6)
    assert np.mean([one.low <= bias <= one.high for one in found]) < 0.5


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_intervals_of_differences_cover_the_truth(num_seeds: int) -> None:
    rng = generator(1, num_seeds, "coverage")
    covered = []
    for _ in range(STUDIES):
        shared = 10 * rng.normal(size=(1, 12))  # some videos are hard for everybody
        one, other = (shared + made_up(rng, num_seeds, 12, (2, 1, 1)) for _ in range(2))
        found = interval(one, other)
        covered.append(found.low <= 0 <= found.high)
        assert found.high - found.low < 40, "what videos have in common does not widen it"
    assert np.mean(covered) >= 0.93


def test_a_bootstrap_over_three_seeds_would_not_do() -> None:
    rng = generator(2, 3, "coverage")
    covered = []
    for _ in range(300):
        scores = made_up(rng, 3, 12, (3, 1, 1))
        seeds, videos = rng.integers(0, 3, (500, 3, 1)), rng.integers(0, 12, (500, 1, 12))
        low, high = np.percentile(scores[seeds, videos].mean((1, 2)), [2.5, 97.5])
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.9


def test_one_seed_or_one_sequence_leaves_students_interval() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    half = 2.776445 * values.std(ddof=1) / np.sqrt(5)
    for found in (interval(values[None]), interval(values[:, None])):
        assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-5)


def test_p_is_where_the_interval_reaches_the_bound() -> None:
    found = interval(made_up(generator(3, 0, "coverage"), 4, 9, (1, 2, 1)))
    for bound in (found.low, found.high):
        assert found.p(bound) == pytest.approx(0.05, rel=1e-4)
    assert found.p(found.mean) == pytest.approx(1.0)
    assert found.p(found.high + 1) < 0.05 < found.p((found.mean + found.high) / 2)


def test_weights_make_the_difference_that_of_the_weighted_means() -> None:
    rng = generator(4, 0, "coverage")
    one, other, weights = rng.normal(size=(3, 6)), rng.normal(size=(2, 6)), np.array([1.0, 1, 4, 2, 1, 3])
    expected = np.average(one.mean(0), weights=weights) - np.average(other.mean(0), weights=weights)
    assert interval(one, other, weights).mean == pytest.approx(expected)


def test_holm_keeps_the_order_and_never_lowers_a_p() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
