"""Clip merging: which clips, what is pasted, and what the labels say afterwards."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import index, plan, video

from ovos_ray.config import DataConfig, ExperimentConfig, override
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import ConfigError
from ovos_ray.packing.pack import pack
from ovos_ray.pixels.merging import paste_objects
from ovos_ray.run.checks import check_config

Pixels = npt.NDArray[np.uint8]
SIZE, NUM_FRAMES = 12, 3


def made_up_clip(seed: int, colour: int, num_objects: int) -> tuple[Pixels, Pixels]:
    """Rectangles anywhere, some in a part of the frames only, on a plain colour; pixels are colour + 20 · id."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((NUM_FRAMES, SIZE, SIZE), np.uint8)
    for object_id in rng.permutation(np.arange(1, 1 + num_objects)):
        for t in range(NUM_FRAMES):
            if rng.random() < 0.8:
                top, left = rng.integers(0, SIZE - 3, 2)
                labels[t, top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = object_id
    frames = np.repeat((colour + 20 * labels)[:, None], 3, axis=1).astype(np.uint8)
    return frames, labels


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), base=st.integers(0, 3), other=st.integers(0, 3))
def test_pasted_objects_cover_what_was_there_and_nothing_else_changes(seed: int, base: int, other: int) -> None:
    frames, labels = made_up_clip(seed, 10, base)
    other_frames, other_labels = made_up_clip(seed + 1, 110, other)
    before = frames.copy(), labels.copy()
    merged, merged_labels = paste_objects(frames, labels, other_frames, other_labels)
    assert np.array_equal(frames, before[0])
    assert np.array_equal(labels, before[1])

    pasted_ids = set(np.unique(other_labels[0]).tolist()) - {0}
    pasted = np.isin(other_labels, list(pasted_ids))
    assert np.array_equal(merged_labels[~pasted], labels[~pasted]), "labels outside are as they were"
    used = set(np.unique(labels).tolist())
    names: dict[int, int] = {}
    for object_id in pasted_ids:
        found = set(np.unique(merged_labels[other_labels == object_id]).tolist())
        assert len(found) == 1, "one object is one id in all frames"
        names[object_id] = found.pop()
    assert not used & set(names.values()), "no pasted object shares an id with one of the clip"
    assert len(set(names.values())) == len(names)
    # Two pixels away from the pasted masks the blur has ended; deep inside them only the other clip is seen.
    for t in range(NUM_FRAMES):
        near = np.zeros((SIZE, SIZE), bool)
        for y, x in zip(*np.nonzero(pasted[t]), strict=True):
            near[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
        assert np.array_equal(merged[t][:, ~near], frames[t][:, ~near])
        low, high = np.minimum(frames[t], other_frames[t]), np.maximum(frames[t], other_frames[t])
        assert (merged[t] >= low).all()
        assert (merged[t] <= high).all()


def test_edges_are_blended_with_a_gaussian_of_sigma_1() -> None:
    # A half plane: the 5-tap kernel exp(-d²/2) gives the weights by hand.
    frames, labels = np.zeros((1, 3, SIZE, SIZE), np.uint8), np.zeros((1, SIZE, SIZE), np.uint8)
    other_frames = np.full_like(frames, 200)
    other_labels = labels.copy()
    other_labels[:, :, 6:] = 4
    merged, merged_labels = paste_objects(frames, labels, other_frames, other_labels)
    kernel = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    kernel /= kernel.sum()
    expected = [200 * kernel[max(0, 6 - x + 2) :].sum() if x >= 4 else 0.0 for x in range(SIZE)]
    expected = [200.0 if x >= 8 else value for x, value in enumerate(expected)]
    assert merged[0, 0, 5] == pytest.approx(expected, abs=0.51)
    assert merged_labels[0, 5].tolist() == [0] * 6 + [1] * 6


def test_an_object_that_is_not_in_the_first_frame_is_not_pasted() -> None:
    frames, labels = made_up_clip(0, 10, 1)
    other_labels = np.zeros_like(labels)
    other_labels[1:, 2:8, 2:8] = 3
    merged, merged_labels = paste_objects(frames, labels, np.full_like(frames, 250), other_labels)
    assert np.array_equal(merged, frames)
    assert np.array_equal(merged_labels, labels)


DENSE = tuple(range(12))


def test_merged_clips_are_drawn_from_the_plan_and_change_nothing_else_in_it() -> None:
    videos = index(*(video(f"v{i}", 12, label_frames=DENSE) for i in range(6)))
    settings_ = {"clip_start": "any", "clip_length": 4, "max_skip": ((0.0, 2),)}
    plain, merging = plan(videos, **settings_), plan(videos, clip_merging=0.5, **settings_)
    clips = [merging.clip(p) for p in range(600)]
    for position, clip in enumerate(clips):
        assert dataclasses.replace(clip, merged=None) == plain.clip(position)
        assert merging.clip(position) == clip
    partners = [clip.merged for clip in clips if clip.merged is not None]
    assert 250 < len(partners) < 350
    counts = Counter(partner.video for partner in partners)
    assert set(counts) == {f"v{i}" for i in range(6)}
    # Chi-squared with 5 degrees of freedom exceeds 20.5 with probability 0.001.
    assert sum((n - len(partners) / 6) ** 2 / (len(partners) / 6) for n in counts.values()) < 20.5
    for partner in partners:
        assert 1 <= np.diff(partner.frames).min() <= np.diff(partner.frames).max() <= 2
    assert all(clip.merged is None or clip.merged.seed != clip.seed for clip in clips)
    other_seed = plan(videos, seed=1, clip_merging=0.5, **settings_)
    assert [other_seed.clip(p).merged for p in range(50)] != [clip.merged for clip in clips[:50]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=6)
    synthetic.generate(root / "dataset", seed=5, num_videos={"train": 4, "val": 1}, config=small)
    pack(open_dataset(root / "dataset"), root / "all", labels="all", split="train")
    return root / "all"


def samples(shards: Path, number: int = 24, **changes: Any) -> list[Any]:
    values = {"clip_length": 3, "crop_size": 48, "batch_size": 4, "max_objects": 3, "clip_start": "any", **changes}
    data = DataConfig(shards=(str(shards),), **values)
    made = Plan([ShardIndex.load(shards)], data, seed=0, steps=10)
    decoder = ClipDecoder(data, all_labels=True)
    return [(made.clip(p), decoder(made.clip(p))) for p in range(number)]


def test_merged_samples_show_more_objects_up_to_the_limit(shards: Path) -> None:
    alone, merged = samples(shards), samples(shards, clip_merging=1.0)
    grown = 0
    for (_, before), (_, after) in zip(alone, merged, strict=True):
        assert after.num_objects <= 3
        assert set(np.unique(after.labels[0])) == set(range(after.num_objects + 1))
        if before.num_objects == 3:
            assert np.array_equal(after.frames, before.frames), "a clip with the most objects gets no more"
        else:
            assert not np.array_equal(after.frames, before.frames)
            grown += after.num_objects > before.num_objects
    assert grown > 5
    again = samples(shards, clip_merging=1.0)
    assert all(np.array_equal(a.frames, b.frames) for (_, a), (_, b) in zip(merged, again, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"data.clip_merging": 0.5},
        {"data.time_reversal": 0.5},
        {"data.clip_merging": 0.5, "method.name": "supervised", "data.source": "static"},
    ],
)
def test_settings_that_need_all_labels_are_refused_without(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="need a label on every frame"):
        check_config(override(ExperimentConfig(), changes))
    check_config(override(ExperimentConfig(), changes | {"method.name": "supervised", "data.source": "video"}))
