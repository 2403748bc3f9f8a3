"""Every row of Tables 1 to 4 and Figures 4 to 7, up to the first step, on toy folders in the official layouts."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_benchmarks import IMAGES, PACK, TRAINING_VIDEOS, make_benchmarks
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.prediction import predict_dataset
from ovos_ray.evaluate.score import submission
from ovos_ray.run.pretraining import pretraining_stage
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

STUDIES = {
    "search_spaces.networks.paper": 18,
    "search_spaces.pretraining.paper": 18,
    "search_spaces.backward_strategy.paper": 18,
    "search_spaces.clip_length.paper": 24,
    "search_spaces.skip_schedule.paper": 15,
}
"""Trials by study: rows times three seeds."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paper")
    make_benchmarks(root)
    (root / "imagenet").mkdir()
    for name in ("resnet18-f37072fd.pth", "resnet50-0676ba61.pth"):  # a dry run asks only whether they are there
        (root / "imagenet" / name).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for words in PACK:
            packed = CliRunner().invoke(app, ["pack", *words])
            assert packed.exit_code == 0, packed.exception
    return root


@pytest.fixture(autouse=True)
def _there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.setenv("OVOS_IMAGENET", str(workplace / "imagenet"))
    monkeypatch.setenv("COLUMNS", "200")


def configurations() -> dict[str, ExperimentConfig]:
    """Every configuration of the paper by its digestible name, one seed each."""
    found = {"Figure 6": make("trainables.empty_reference.cutie", ExperimentConfig)}
    for study in STUDIES:
        for trial in expand(make(study, SearchSpace))[0]:
            if trial.config.seed == 0:
                found[f"{study} {trial.name}"] = trial.config
    for config in list(found.values()):
        stage = pretraining_stage(config)
        if stage is not None and config.pretrain is not None:
            found[config.pretrain.recipe] = stage
    return found


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_can_start_as_it_stands(study: str) -> None:
    shown = CliRunner().invoke(app, ["sweep", study, "--dry-run", "--on", "h100"])
    assert shown.exit_code == 0, shown.exception
    assert f": {STUDIES[study]} trials of {STUDIES[study] // 3} configurations" in shown.stdout
    assert "cannot run yet" not in shown.stdout, shown.stdout


def test_figure_6_can_start_as_it_stands() -> None:
    shown = CliRunner().invoke(app, ["train", "trainables.empty_reference.cutie", "--dry-run", "--on", "h100"])
    assert shown.exit_code == 0, shown.exception


def plan_of(config: ExperimentConfig) -> Plan:
    indices = [ShardIndex.load(folder) for folder in config.data.shards]
    return Plan(indices, config.data, seed=config.seed, steps=config.train.steps)


POSITIONS = 3_000


def test_every_row_reads_the_right_data_in_the_right_shares() -> None:
    for name, config in configurations().items():
        plan = plan_of(config)
        counted = Counter(plan.clip(position).source for position in range(POSITIONS))
        by_folder = {Path(config.data.shards[source]).name: count for source, count in counted.items()}
        if config.data.source == "static":
            times = {known: 5 if known in ("BIG_small", "HRSOD_small") else 1 for known in IMAGES}
            items = {known: times[known] * count for known, count in IMAGES.items()}
        else:
            suffix = "_all" if config.method.name == "supervised" else ""
            items = {f"youtube_vos2018{suffix}": 10, f"davis2017{suffix}": 5 * TRAINING_VIDEOS["davis2017"]}
            labels = {ShardIndex.load(folder).labels for folder in config.data.shards}
            assert labels == {"all" if suffix else "first"}, name
            assert not plan.excluded, (name, plan.excluded)
        assert set(by_folder) == set(items), name
        for folder, count in items.items():
            # An epoch visits every item once, so that counts are off by less than one epoch's.
            assert abs(by_folder[folder] - POSITIONS * count / sum(items.values())) <= count, (name, folder)


# D in video frames at the first step and after so many optimiser steps.
STCN_D = {0: 5, 15_000: 10, 30_000: 15, 45_000: 20, 60_000: 25, 119_999: 25, 120_000: 5}
EXPECTED_D: dict[str, dict[int, int]] = {
    "trainables.one_shot.stcn": STCN_D,
    "trainables.one_shot.xmem": {0: 5, 10_999: 5, 11_000: 10, 33_000: 15, 98_999: 15, 99_000: 5},
    "trainables.one_shot.cutie": {0: 5, 12_500: 10, 37_500: 15, 99_999: 15, 100_000: 5},
    "trainables.fully_supervised.stcn": {**STCN_D, 120_000: 25, 134_999: 25, 135_000: 5},
    "trainables.fully_supervised.xmem": {0: 5, 9_999: 5, 10_000: 10, 30_000: 15, 89_999: 15, 90_000: 5},
    "trainables.fully_supervised.cutie": {0: 5, 12_500: 10, 37_500: 15, 99_999: 15, 100_000: 5},
}


@pytest.mark.parametrize("recipe", EXPECTED_D)
def test_gaps_reach_d_in_video_frames_and_change_where_they_should(recipe: str) -> None:
    config = make(recipe, ExperimentConfig)
    plan, batch = plan_of(config), config.data.batch_size
    published_stcn = recipe == "trainables.fully_supervised.stcn"
    for step, d in EXPECTED_D[recipe].items():
        assert plan.max_skip(step) == d
        clips, largest = 0, Counter[int]()
        for position in range(step * batch, step * batch + 300):
            clip = plan.clip(position)
            if clip.max_skip == d:
                clips += 1
                largest[clip.source] = max(largest[clip.source], int(np.abs(np.diff(clip.frames)).max()))
        n, frames = config.data.clip_length, 12
        for source, interval in ((0, 5), (1, 2 if "cutie" in recipe else 1)):
            limit = max(1, d // interval) + published_stcn
            assert largest[source] <= limit, (step, source)
            if limit <= frames - n and clips == 300:
                assert largest[source] == limit, (step, source)


def test_every_row_has_the_steps_of_its_network() -> None:
    steps = {"stcn": 150_000, "xmem": 110_000, "cutie-base": 125_000}
    static = {"stcn": 300_000, "xmem": 150_000, "cutie-base": 80_000}
    for name, config in configurations().items():
        known: dict[str, int] = static if config.data.source == "static" else steps
        expected = 15_000 if name == "Figure 6" else known[config.network.name]
        assert (config.train.steps, config.network.init) == (expected, "imagenet"), name
        assert (config.data.clip_length, config.data.batch_size) == {
            ("stcn", False): (3, 8),
            ("xmem", False): (config.data.clip_length if "clip_length" in name else 8, 8),
            ("cutie-base", False): (config.data.clip_length if "clip_length" in name else 8, 16),
        }.get((config.network.name, config.data.source == "static"), (3, 16)), name


@pytest.mark.parametrize("year", [2018, 2019])
def test_the_zip_of_table_2_is_made_from_the_masks_that_were_kept(
    year: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("search_spaces.networks.paper", SearchSpace)
    also: Any = override(ExperimentConfig(), config.overrides).evaluation.also
    kept = {one.name: one for one in also}[f"youtube{year}"]
    folder = open_dataset(kept.root)
    predict_dataset(copy_first_mask, folder, kept.split, tmp_path / "kept")
    name = f"youtube-vos{year}"
    monkeypatch.setitem(submission.BENCHMARKS, name, submission.ServerBenchmark("youtube-vos", "valid", 2))
    words = ["--benchmark", name, "--root", kept.root, "--predictions", str(tmp_path / "kept")]
    made = CliRunner().invoke(app, ["submission", *words, "--out", str(tmp_path / "a.zip")])
    assert made.exit_code == 0, (made.stdout, made.exception)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
    assert names == [f"Annotations/v{year}{video}/{frame:05d}.png" for video in range(2) for frame in (0, 5, 10)]
