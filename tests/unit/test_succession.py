"""How a population goes on: who from whom and with which settings, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from ovos_ray.errors import ConfigError
from ovos_ray.study.space import Range, SearchSpace
from ovos_ray.study.succession import Successor, successors

LR = "optimizer.learning_rate"
RATES = SearchSpace(
    name="rates",
    trainable="none",
    ranges={LR: Range(1e-4, 1e-2, log=True)},
    num_samples=8,
    seeds=(0,),
    metric="val/jf",
    scheduler="pbt",
    searcher="random",
)
EIGHT = [{LR: rate} for rate in (1e-4, 2e-4, 4e-4, 8e-4, 1e-3, 2e-3, 4e-3, 1e-2)]
SCORES = [30.0, 80.0, 50.0, 10.0, 90.0, 20.0, 60.0, 40.0]


def test_the_worst_quarter_goes_on_from_the_best_quarter_with_perturbed_settings() -> None:
    space = dataclasses.replace(RATES, resample=0.0)
    seen = set()
    for search_seed in range(20):
        decided = successors(dataclasses.replace(space, search_seed=search_seed), 1, EIGHT, SCORES)
        for member in (0, 1, 2, 4, 6, 7):
            assert decided[member] == Successor(member, EIGHT[member])
        for member in (3, 5):  # 10 and 20; the best two are 4 (1e-3) and 1 (2e-4)
            assert decided[member].parent in (1, 4)
            factor = decided[member].values[LR] / EIGHT[decided[member].parent][LR]
            assert min(abs(factor - 0.8), abs(factor - 1.2)) < 1e-9
            seen.add((decided[member].parent, round(factor, 1)))
    assert seen == {(1, 0.8), (1, 1.2), (4, 0.8), (4, 1.2)}


def test_perturbed_values_stay_in_their_range_and_new_ones_are_drawn_from_it() -> None:
    edges = [{LR: 1e-2}, {LR: 1e-3}, {LR: 1e-3}, {LR: 1e-4}]
    never = dataclasses.replace(RATES, resample=0.0)
    drawn = {successors(never, g, edges, [9.0, 2.0, 3.0, 1.0])[3].values[LR] for g in range(1, 20)}
    assert drawn == {8e-3}, "1.2 times the upper end would be the upper end"
    always = dataclasses.replace(RATES, resample=1.0)
    new = {successors(always, g, edges, [9.0, 2.0, 3.0, 1.0])[3].values[LR] for g in range(1, 20)}
    assert len(new) > 10
    assert all(1e-4 <= rate <= 1e-2 for rate in new)


def test_a_choice_is_perturbed_to_a_neighbour_that_some_member_has() -> None:
    joint = "method.backward method.reference_mask"
    entries = (("1-step", "soft"), ("2-step", "soft"), ("T-step", "soft"), ("T-step", "hard"))
    space = dataclasses.replace(RATES, ranges={}, axes={joint: entries}, resample=0.0)
    values = [{joint: entry} for entry in entries[1:]]  # 1-step was left out, as for recurrent networks
    drawn = {successors(space, g, values, [9.0, 5.0, 1.0])[2].values[joint] for g in range(1, 20)}
    assert drawn == {("T-step", "soft")}, "the only neighbour of 2-step that is left"
    drawn = {successors(space, g, values, [5.0, 9.0, 1.0])[2].values[joint] for g in range(1, 20)}
    assert drawn == {("2-step", "soft"), ("T-step", "hard")}


def test_members_without_a_score_go_on_from_others_and_equals_stay_apart() -> None:
    decided = successors(RATES, 1, EIGHT[:4], [None, 5.0, None, 7.0])
    assert [one.parent for one in decided] == [3, 1, 3, 3]
    assert [one.parent for one in successors(RATES, 1, EIGHT[:4], [5.0] * 4)] == [0, 1, 2, 3]
    assert [one.parent for one in successors(RATES, 1, EIGHT[:2], [1.0, 2.0])] == [1, 1]
    with pytest.raises(ConfigError, match="no member of the population has a score"):
        successors(RATES, 1, EIGHT[:2], [None, None])


def test_decisions_follow_from_seed_generation_and_member_alone() -> None:
    once = successors(RATES, 3, EIGHT, SCORES)
    assert successors(RATES, 3, EIGHT, SCORES) == once
    assert once[3].values != once[5].values
    assert successors(RATES, 4, EIGHT, SCORES) != once
    assert successors(dataclasses.replace(RATES, search_seed=1), 3, EIGHT, SCORES) != once
