"""`data.static_share`: steps on clips synthesised from the run's own labelled frames, decided by seed and step."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config_of, local_stream, same, train_alone

from ovos_ray import networks
from ovos_ray.cli.demo_chain import _trials, demo_config, demo_space
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.data_settings import static_augmentation
from ovos_ray.config.digest import digest
from ovos_ray.data.clips.batches import LocalStream
from ovos_ray.data.clips.curricula import is_static_step
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import ConfigError
from ovos_ray.run.checks import check_config
from ovos_ray.run.estimate import estimate
from ovos_ray.study.expand import expand
from ovos_ray.train.step import TrainingModule
from trainables import one_shot, synthetic

HALF = {"data.static_share": ((0.0, 1.0), (0.25, 0.5))}
ALL = {"data.static_share": ((0.0, 1.0),)}

Batch = dict[str, torch.Tensor]


def static_steps(config: ExperimentConfig) -> list[int]:
    share, steps = config.data.static_share, config.train.steps
    return [step for step in range(steps) if is_static_step(share, config.seed, step, steps)]


def batches(config: ExperimentConfig, workers: int = 1) -> list[Batch]:
    ranks = [local_stream(config, rank, workers).batches() for rank in range(workers)]
    return [
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in zip(*ranks, strict=True)
    ]


def equal(one: Batch, other: Batch, *names: str) -> bool:
    return all(torch.equal(one[name], other[name]) for name in names or one)


def test_a_quarter_of_the_steps_first_and_every_fourth_later() -> None:
    share = ((0.0, 1.0), (0.25, 0.25))
    chosen = {seed: [s for s in range(80) if is_static_step(share, seed, s, 80)] for seed in range(6)}
    for steps in chosen.values():
        assert steps[:20] == list(range(20))
        later = steps[20:]
        assert len(later) == 15
        assert {b - a for a, b in itertools.pairwise(later)} == {4}
    assert len({steps[20] for steps in chosen.values()}) > 1, "the phase is drawn from the seed"
    assert not any(is_static_step((), 0, s, 80) or is_static_step(((0.0, 0.0),), 0, s, 80) for s in range(80))
    assert all(is_static_step(((0.0, 1.0),), seed, s, 10**7) for seed in range(3) for s in range(10**7 - 50, 10**7))
    assert sum(is_static_step(((0.0, 0.3),), 1, s, 1000) for s in range(1000)) in (299, 300, 301)


def test_the_other_steps_see_the_clips_of_a_run_without(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, **HALF)
    static = static_steps(config)
    assert static[:2] == [0, 1]
    assert len(static) == 5
    plain = batches(config_of(shards, tmp_path))
    for step, (mixed, without) in enumerate(zip(batches(config), plain, strict=True)):
        assert equal(mixed, without, "frames", "label") is (step not in static)
        assert equal(mixed, without, "position")
        assert mixed["labels"].shape[1] == (4 if step in static else 1), "no label that the shards do not hold"
    assert not is_static_step((), config.seed, 0, 8)


def test_a_run_of_static_steps_alone_is_stage_zero(shards: Path, tmp_path: Path) -> None:
    mixed = config_of(shards, tmp_path, **ALL)
    stage = {"data.source": "static", "method.name": "supervised", "data.augmentation": static_augmentation()}
    pure = config_of(shards, tmp_path, **stage)
    pairs = list(zip(batches(mixed), batches(pure), strict=True))
    assert all(equal(*pair) for pair in pairs)
    assert not equal(pairs[0][0], pairs[1][0], "frames")
    network = networks.build("xmem-tiny", seed=0)
    found, scalars = TrainingModule(network, mixed)(pairs[0][0], 0)
    expected, plain = TrainingModule(network, pure)(pairs[0][1], 0)
    # A one-shot step compares one frame, a supervised one of 4 frames three.
    torch.testing.assert_close(found, expected / 3)
    torch.testing.assert_close(scalars["static_cross_entropy"], plain["cross_entropy"] / 3)
    assert torch.equal(scalars["static_iou"], plain["iou"])
    assert set(scalars) == {f"static_{name}" for name in plain}
    # In a supervised run, a static step weighs as much as any other.
    beside = override(mixed, {"method.name": "supervised"})
    assert torch.equal(TrainingModule(network, beside)(pairs[0][0], 0)[0], expected)


@pytest.mark.parametrize("workers", [2, 3])
def test_batches_are_the_same_for_any_number_of_workers(shards: Path, tmp_path: Path, workers: int) -> None:
    config = config_of(shards, tmp_path, **HALF)
    alone = batches(config)
    assert all(equal(*pair) for pair in zip(alone, batches(config, workers), strict=True))
    other = batches(override(config, {"seed": 1}), workers)
    assert not any(equal(*pair, "frames") for pair in zip(alone, other, strict=True))


def test_an_interrupted_run_ends_with_the_same_weights(shards: Path, tmp_path: Path) -> None:
    whole = train_alone(config_of(shards, tmp_path, name="whole", **HALF))
    config = config_of(shards, tmp_path, name="stopped", **HALF)

    class StoppedError(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 4 and "train/loss" in record:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_alone(config, watcher=stop)
    resumed = local_stream(config)
    assert isinstance(resumed, LocalStream)
    assert resumed.start_step == 2
    assert same(train_alone(config, resumed), whole)
    assert not same(train_alone(config_of(shards, tmp_path, name="without")), whole)


def test_static_and_other_steps_are_logged_apart(shards: Path, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    config = config_of(shards, tmp_path, **{**HALF, "train.log_every": 1})
    train_alone(config, watcher=lambda record: records.append(record) if "train/clips_per_s" in record else None)
    static = static_steps(config)
    for step, record in enumerate(records):
        kind, other = ("train/static_", "train/") if step in static else ("train/", "train/static_")
        for name in ("loss", "iou", "gradient_norm", "cross_entropy"):
            assert f"{kind}{name}" in record
            assert f"{other}{name}" not in record
        assert record["train/static_steps"] == float(step in static)
    both: list[dict[str, Any]] = []
    config = override(config, {"name": "together", "train.log_every": 8})
    train_alone(config, watcher=lambda record: both.append(record) if "train/clips_per_s" in record else None)
    for name in ("train/loss", "train/static_loss"):
        values = [record[name] for record in records if name in record]
        assert both[0][name] == pytest.approx(sum(values) / len(values))
    assert both[0]["train/static_steps"] == 5 / 8


def test_the_digest_of_runs_without_static_steps_is_what_it_was() -> None:
    # Of the recipe as it was before there was such a setting.
    assert digest(one_shot.one_shot()) == "3fedc195e98c"
    assert digest(one_shot.with_static_clips()) != digest(one_shot.one_shot())
    assert digest(override(one_shot.one_shot(), ALL)) != digest(one_shot.with_static_clips())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.static_share": ((0.0, 1.5),)}, "shares in 0 … 1"),
        ({"data.static_share": ((0.5, 1.0),)}, "data.static_share .* is not a curriculum"),
        ({**ALL, "data.source": "static", "method.name": "supervised"}, "leave one of them out"),
    ],
)
def test_what_cannot_be_meant_is_refused(shards: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(config_of(shards, tmp_path, **changes))


def test_a_clip_of_a_static_step_reads_the_labelled_frame_alone(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, **HALF)
    index = ShardIndex.load(shards)
    plan = Plan([index], config.data, seed=config.seed, steps=config.train.steps)
    labelled = {video.name: video.label_frames for video in index.videos}
    for step in range(config.train.steps):
        for clip in plan.clips(step):
            assert clip.static is (step in static_steps(config))
            assert clip.frames[:1] == tuple(labelled[clip.video])
            assert len(clip.frames) == (1 if clip.static else 4)


def test_the_demo_trains_one_network_with_static_clips_beside_its_plain_one(tmp_path: Path) -> None:
    *plain, mixed = _trials(demo_space(), demo_config(tmp_path))
    assert [trial.name for trial in plain] == [trial.name for trial in expand(demo_space(), demo_config(tmp_path))[0]]
    (twin,) = (trial for trial in plain if trial.name == "stcn-tiny 2-step seed 0")
    assert mixed.name == "stcn-tiny 2-step with static clips seed 0"
    assert mixed.config.name != twin.config.name
    same = {"name": twin.config.name, "data.static_share": (), "data.static_clips": "affine"}
    assert override(mixed.config, same) == twin.config
    recipe, own = synthetic.with_static_clips().data, mixed.config.data
    assert (own.static_share, own.static_clips) == (recipe.static_share, recipe.static_clips)


@pytest.mark.parametrize("share", [((0.0, 1.0), (0.25, 0.25)), ((0.0, 0.0), (0.25, 0.5))])
def test_a_run_with_static_steps_is_estimated(
    shards: Path, tmp_path: Path, share: tuple[tuple[float, float], ...]
) -> None:
    found = estimate(config_of(shards, tmp_path, **{"data.static_share": share, "data.crop_size": 32}))
    assert found.seconds > 0
