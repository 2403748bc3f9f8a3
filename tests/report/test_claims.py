from __future__ import annotations

import numpy as np
import pytest
from claims import difference, interval, judge

from ovos_ray.seeding import generator


def test_differences_are_paired_over_the_seeds_and_videos_that_both_have() -> None:
    one = {0: {"a": 5.0, "b": 7.0}, 1: {"a": 1.0, "b": 2.0, "c": 9.0}, 2: {"a": 0.0, "b": 0.0}}
    other = {1: {"b": 4.0, "a": 1.5}, 0: {"a": 4.0, "b": 2.0, "d": 1.0}}
    assert difference(one, other).tolist() == [[1.0, 5.0], [-0.5, -2.0]]


def test_the_interval_over_seeds_is_students() -> None:
    found = interval(np.array([[1.0, 3.0], [2.0, 4.0], [5.0, 9.0]]))
    means = np.array([2.0, 3.0, 7.0])
    assert found.mean == pytest.approx(4.0)
    assert found.seeds == pytest.approx(4.303 * means.std(ddof=1) / np.sqrt(3))
    assert (found.num_seeds, found.num_videos) == (3, 2)
    assert interval(np.array([[1.0, 3.0]])).seeds is None


def test_the_interval_covers_the_mean_it_should_about_as_often_as_it_says() -> None:
    """Independent errors, enough seeds: 95 % intervals hold the true mean in some nine of ten studies, not in half."""
    rng = generator(0, 0, "claims")
    found = [interval(rng.normal(1.0, 2.0, (8, 12))) for _ in range(60)]
    covered = np.mean([one.low <= 1.0 <= one.high for one in found])
    assert covered > 0.85
    assert np.mean([one.low <= 2.0 <= one.high for one in found]) < 0.2


def test_a_claim_is_reproduced_contradicted_or_open() -> None:
    rng = generator(0, 1, "claims")
    found = interval(rng.normal(5.0, 1.0, (3, 8)))
    assert judge(found, 0.0) == "reproduced"
    assert judge(found, 10.0) == "contradicted"
    assert judge(found, found.mean) == "inconclusive"
