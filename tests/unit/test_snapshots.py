"""Masks kept while a network learns: what it predicts at that step, at no cost to what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import config_of, copy_of_made, train_alone
from safetensors.torch import load_file
from synthetic_study import memory_run

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.config.recipes import make
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import decode_mask
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.infer.inference import predict_video
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.pictures.emergence import emergence_galleries
from ovos_ray.report.runs import Study
from ovos_ray.run.snapshots import snapshot_videos

FRAMES = [f"{t:05d}.png" for t in range(5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_made(tmp_path_factory.mktemp("data"), num_train=2, num_frames=5, num_val=3).parent


def train(data: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    small = {"network.name": "stcn-tiny", "data.clip_length": 3, "data.batch_size": 1, "data.crop_size": 32}
    empty = {"method.reference": "empty", "method.empty_objects": "merge"}
    kept = {"train.steps": 4, "train.snapshot_every": 2, "evaluation.root": str(data / "dataset")}
    config = config_of(data / "shards", storage, **small | empty | kept | changes)
    train_alone(config)
    return config


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return train(data, tmp_path_factory.mktemp("runs"))


def test_snapshots_hold_what_the_network_predicts_from_an_empty_reference(trained: ExperimentConfig) -> None:
    run = Path(trained.storage) / "run"
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == [f"step-{s:08d}" for s in (0, 2, 4)]
    at_start = networks.build("stcn-tiny", seed=trained.seed)
    at_end = networks.build("stcn-tiny")
    at_end.load_state_dict(load_file(run / "network.safetensors"))
    video = open_dataset(str(trained.evaluation.root)).video("val", "val-000")
    for step, network in ((0, at_start), (4, at_end)):
        folder = run / "snapshots" / f"step-{step:08d}" / "val-000"
        assert sorted(path.name for path in folder.glob("*.png")) == FRAMES
        expected = list(predict_video(network, video.images(), {0: video.mask(0)}, reference="empty"))
        for name, mask in zip(FRAMES, expected, strict=True):
            assert np.array_equal(decode_mask(folder / name), mask)
        back = list(predict_video(network, list(video.images())[::-1], {0: expected[-1]}))[-1]
        again = list(predict_video(network, video.images(), {0: back}))
        for name, mask in zip(FRAMES, again, strict=True):
            assert np.array_equal(decode_mask(folder / "again" / name), mask)
    assert not (run / "snapshots" / "step-00000004" / "val-002").exists(), "two videos are enough"


def test_snapshots_leave_the_training_as_it_was(data: Path, trained: ExperimentConfig, tmp_path: Path) -> None:
    without = train(data, tmp_path / "without", **{"train.snapshot_every": 0})
    other = train(data, tmp_path / "other", **{"train.snapshot_every": 0, "seed": 1})
    one, two, three = (
        load_file(Path(config.storage) / "run" / "network.safetensors") for config in (trained, without, other)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)
    assert not (tmp_path / "without" / "run" / "snapshots").exists()


def test_a_given_reference_is_predicted_from_and_not_fed_back(data: Path, tmp_path: Path) -> None:
    config = train(data, tmp_path, **{"method.reference": "predicted", "train.snapshot_every": 4})
    folder = Path(config.storage) / "run" / "snapshots" / "step-00000004" / "val-001"
    video = open_dataset(str(config.evaluation.root)).video("val", "val-001")
    assert np.array_equal(decode_mask(folder / FRAMES[0]), video.mask(0))
    assert not (folder / "again").exists()


def test_report_shows_masks_after_more_and_more_steps(trained: ExperimentConfig) -> None:
    params = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(trained).items()}
    folder = Path(trained.storage) / "run" / "snapshots"
    run = memory_run("2-step", 0, {("val-000", 1): (50.0, 50.0)}, params=params)
    tagged = replace(run, tags={"ovos.snapshots": str(folder)}, status="running")
    one, two = emergence_galleries(compare(Study("s", "1", "uri", (tagged,))).rows)
    assert (one.sequence, two.sequence) == ("val-000", "val-001")
    words = ["after 0 steps", "after 2 steps", "after 4 steps", "after 4 steps, fed back"]
    assert [strip.label for strip in one.strips] == words
    video = open_dataset(str(trained.evaluation.root)).video("val", "val-000")
    overlaps = []
    for t, name in list(enumerate(FRAMES))[1:]:
        pred, true = decode_mask(folder / "step-00000004" / "val-000" / name) > 0, video.mask(t) > 0
        overlaps.append(100 * (pred & true).sum() / (pred | true).sum())
    assert one.strips[2].score == f"J of the foreground {sum(overlaps) / 4:.1f}"

    gone = replace(tagged, tags={"ovos.snapshots": "/gone/snapshots"})
    assert emergence_galleries(compare(Study("s", "1", "uri", (gone,))).rows) == ()


def test_figure_6_has_its_command() -> None:
    """`train trainables.empty_reference.cutie` keeps masks of the figure's two sequences, of objects without holes."""
    config = make("trainables.empty_reference.cutie", ExperimentConfig)
    assert config.method.empty_objects == "merge"
    assert config.evaluation.root is not None
    assert config.train.snapshot_every
    assert config.train.snapshot_videos == ("motocross-jump", "drift-chicane")


def test_the_videos_asked_for_are_kept_and_a_name_that_is_not_there_is_refused(data: Path) -> None:
    def videos(*names: str) -> list[str]:
        changes = {"evaluation.root": str(data / "dataset"), "train.snapshot_videos": names}
        return [video.name for video in snapshot_videos(override(ExperimentConfig(), changes))]

    assert videos() == ["val-000", "val-001"]
    assert videos("val-002") == ["val-002"]
    with pytest.raises(ConfigError, match="has no camel"):
        videos("val-001", "camel")
