"""Schedules at and around every boundary, by hand."""

from __future__ import annotations

import pytest
import torch

from ovos_ray.config import LossConfig, OptimizerConfig
from ovos_ray.methods.schedules import learning_rate_at, top_fraction_at


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
