"""Schedules at and around every boundary, by hand."""

from __future__ import annotations

import pytest
import torch

from ovos_ray.config import LossConfig, OptimizerConfig
from ovos_ray.errors import ConfigError
from ovos_ray.methods.schedules import learning_rate_at, max_skip_at, top_fraction_at

STCN = ((0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (0.8, 5))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 5), (99, 5), (100, 10), (199, 10), (200, 15), (300, 20), (399, 20), (400, 25), (799, 25), (800, 5), (999, 5)],
)
def test_max_skip_of_the_papers_stcn_curriculum(step: int, expected: int) -> None:
    assert max_skip_at(step, 1000, STCN) == expected


def test_max_skip_holds_after_the_end_and_rounds_boundaries() -> None:
    assert max_skip_at(5000, 1000, STCN) == 5
    assert [max_skip_at(step, 7, ((0.0, 1), (0.5, 9))) for step in range(7)] == [1, 1, 1, 1, 9, 9, 9]
    assert max_skip_at(0, 1, ((0.0, 3),)) == 3


@pytest.mark.parametrize(
    "curriculum",
    [(), ((0.1, 5),), ((0.0, 5), (0.0, 6)), ((0.0, 5), (0.9, 6), (0.1, 7)), ((0.0, 0),), ((0.0, 1), (2.0, 2))],
)
def test_max_skip_refuses_a_curriculum_with_gaps(curriculum: tuple[tuple[float, int], ...]) -> None:
    with pytest.raises(ConfigError, match="max_skip"):
        max_skip_at(0, 100, curriculum)


def test_learning_rate_equals_torchs_multi_step_schedule() -> None:
    config = OptimizerConfig(learning_rate=1e-4, decay_steps=(3, 7))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 7], 0.1)
    for step in range(10):
        assert learning_rate_at(step, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()


def test_learning_rate_warms_up_linearly() -> None:
    config = OptimizerConfig(learning_rate=1.0, warm_up_steps=4, decay_steps=(6,), decay_factor=0.5)
    assert [learning_rate_at(step, config) for step in range(8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_top_fraction_of_the_published_warm_up() -> None:
    config = LossConfig()
    assert top_fraction_at(0, config) == top_fraction_at(19_999, config) == top_fraction_at(20_000, config) == 1.0
    assert top_fraction_at(45_000, config) == pytest.approx(0.15 + 0.85 / 2)
    assert top_fraction_at(69_999, config) == pytest.approx(0.15 + 0.85 / 50_000)
    assert top_fraction_at(70_000, config) == top_fraction_at(10**6, config) == 0.15
    assert top_fraction_at(0, LossConfig(warm_up_start=0, warm_up_end=0)) == 0.15
