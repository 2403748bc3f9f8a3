from __future__ import annotations

import numpy as np
from claims import difference, interval, judge

from ovos_ray.seeding import generator


def test_differences_are_paired_over_the_seeds_and_videos_that_both_have() -> None:
    one = {0: {"a": 5.0, "b": 7.0}, 1: {"a": 1.0, "b": 2.0, "c": 9.0}, 2: {"a": 0.0, "b": 0.0}}
    other = {1: {"b": 4.0, "a": 1.5}, 0: {"a": 4.0, "b": 2.0, "d": 1.0}}
    assert difference(one, other).tolist() == [[1.0, 5.0], [-0.5, -2.0]]


def test_a_claim_is_reproduced_or_out_of_reach_or_open_and_contradicted_only_at_the_papers_budget() -> None:
    rng = generator(0, 1, "claims")
    found = interval(rng.normal(5.0, 1.0, (3, 8)))
    claims = [(found, 0.0), (found, 10.0), (found, found.mean)]
    assert judge(claims) == ["reproduced", "not reached at this budget", "inconclusive"]
    assert judge(claims, at_the_papers_budget=True)[1] == "contradicted"


def test_many_claims_together_need_more_than_one_alone() -> None:
    found = interval(generator(0, 2, "claims").normal(5.0, 1.0, (5, 8)))
    bound = next(b for b in np.arange(found.mean, found.low - 9, -0.01) if found.p(b) < 0.04)
    assert judge([(found, bound)]) == ["reproduced"]
    assert judge([(found, bound)] * 3) == ["inconclusive"] * 3
