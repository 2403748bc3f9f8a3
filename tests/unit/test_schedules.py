"""Schedules at and around every boundary, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ovos_ray.config import ExperimentConfig, LossConfig, OptimizerConfig
from ovos_ray.config.recipes import make
from ovos_ray.data.clips.curricula import max_skip_at
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


# From section 4.1 and the published code of each network: optimiser step, D in force.
CURRICULA = {
    "stcn": [(0, 5), (14_999, 5), (15_000, 10), (30_000, 15), (45_000, 20), (60_000, 25), (119_999, 25), (120_000, 5)],
    "xmem": [(0, 5), (10_999, 5), (11_000, 10), (32_999, 10), (33_000, 15), (98_999, 15), (99_000, 5), (109_999, 5)],
    "cutie": [(0, 5), (12_499, 5), (12_500, 10), (37_499, 10), (37_500, 15), (99_999, 15), (100_000, 5), (124_999, 5)],
}
# Where the fully supervised rows follow the published code and the paper says otherwise.
PUBLISHED = {
    "stcn": [*CURRICULA["stcn"][:-1], (120_000, 25), (134_999, 25), (135_000, 5), (149_999, 5)],
    "xmem": [(0, 5), (9_999, 5), (10_000, 10), (30_000, 15), (89_999, 15), (90_000, 5), (109_999, 5)],
    "cutie": CURRICULA["cutie"],
}
RATES = {
    "stcn": [(0, 1e-5), (124_999, 1e-5), (125_000, 1e-6), (149_999, 1e-6)],
    "xmem": [(0, 1e-5), (79_999, 1e-5), (80_000, 1e-6), (109_999, 1e-6)],
    "cutie": [(0, 1e-4), (99_999, 1e-4), (100_000, 1e-5), (114_999, 1e-5), (115_000, 1e-6), (124_999, 1e-6)],
}


@pytest.mark.parametrize("network", ["stcn", "xmem", "cutie"])
@pytest.mark.parametrize("kind", ["one_shot", "fully_supervised"])
def test_the_recipes_follow_their_schedules_step_by_step(
    network: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    config = make(f"trainables.{kind}.{network}", ExperimentConfig)
    for step, skip in (PUBLISHED if kind == "fully_supervised" else CURRICULA)[network]:
        assert max_skip_at(config.data.max_skip, step, config.train.steps) == skip, step
    for step, rate in RATES[network]:
        assert learning_rate_at(step, config.optimizer) == pytest.approx(rate, rel=1e-12), step


@pytest.mark.parametrize(
    ("network", "steps", "clips", "objects", "rates"),
    [
        ("stcn", 300_000, 16, 1, [(0, 1e-5), (149_999, 1e-5), (150_000, 1e-6)]),
        ("xmem", 150_000, 16, 1, [(0, 1e-5), (149_999, 1e-5)]),
        ("cutie", 80_000, 16, 1, [(0, 1e-4), (79_999, 1e-4)]),
    ],
)
def test_the_recipes_of_stage_0_follow_theirs(
    network: str,
    steps: int,
    clips: int,
    objects: int,
    rates: list[tuple[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    config = make(f"trainables.static_pretraining.{network}", ExperimentConfig)
    assert (config.train.steps, config.data.batch_size, config.data.max_objects) == (steps, clips, objects)
    assert (config.data.clip_length, config.data.crop_size, config.method.name) == (3, 384, "supervised")
    for step, rate in rates:
        assert learning_rate_at(step, config.optimizer) == pytest.approx(rate, rel=1e-12)
