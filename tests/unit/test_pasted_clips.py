"""Clips in which objects of one labelled image move over another: true masks, both images' objects, true colours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from runs import config_of, local_stream, make_shards

from ovos_ray.config import override
from ovos_ray.config.data_settings import static_augmentation
from ovos_ray.config.digest import digest
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.pixels import pasted_clips
from ovos_ray.pixels.pasted_clips import match_colours, synthesise_pasted
from ovos_ray.pixels.static_clips import ClipSpec

STILL = dataclasses.replace(
    static_augmentation(),
    horizontal_flip=0.5,
    clip_jitter=(0.0, 0.0, 0.0, 0.0),
    grayscale=0.0,
    frame_jitter=(0.0, 0.0, 0.0, 0.0),
)
COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]], np.uint8)
"""Of the background, of the two objects that are cut out, and of the two below."""


def scene(first: int) -> tuple[np.ndarray, np.ndarray]:
    """Two squares, each of one colour, on black; so every pixel says whose it is."""
    label = np.zeros((64, 80), np.uint8)
    label[10:28, 12:30], label[34:54, 40:62] = 1, 2
    return COLOURS[np.where(label > 0, label + first, 0)], label


def clip(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    (image, label), (ground, ground_label) = scene(0), scene(2)
    return synthesise_pasted(
        image, label, ground, ground_label, spec=ClipSpec(num_frames=6, crop_size=size, seed=seed, augmentation=STILL)
    )


@pytest.fixture
def own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasted_clips, "match_colours", lambda image, _: image)


@pytest.mark.usefixtures("own_colours")
def test_masks_are_true_in_every_frame_and_both_images_have_their_part() -> None:
    pasted, below, moved = set(), set(), []
    for seed in range(12):
        frames, labels = clip(seed)
        assert frames.shape == (6, 3, 64, 64)
        assert labels.shape == (6, 64, 64)
        found = [np.abs(f[:, :, None].astype(int) - COLOURS).sum(3).argmin(2) for f in frames.transpose(0, 2, 3, 1)]
        count = len({1, 2} & set(found[0].flat))
        for colours, label in zip(found, labels, strict=True):
            # An id belongs to one colour: pasted objects come first, those below after them.
            for object_id in set(label.flat) - {0}:
                inside = colours[label == object_id]
                colour = np.bincount(inside, minlength=5)[1:].argmax() + 1
                if len(inside) > 40:
                    assert (inside == colour).mean() > 0.8
                    (pasted if object_id <= count else below).add(int(colour))
            assert ((colours > 0) == (label > 0)).mean() > 0.9, "but for edges"
        moved.append(np.mean(labels[0] != labels[-1]))
    assert below == {3, 4}
    assert {1, 2} <= pasted
    assert np.median(moved) > 0.1


def test_colours_are_those_of_the_other_image() -> None:
    rng = np.random.default_rng(0)
    image = (rng.random((40, 40, 3)) * [90, 20, 40] + [10, 200, 60]).astype(np.uint8)
    other = np.clip(rng.normal([120, 90, 150], [25, 10, 15], (30, 50, 3)), 0, 255).astype(np.uint8)
    matched = match_colours(image, other).reshape(-1, 3)
    assert np.allclose(matched.mean(0), other.reshape(-1, 3).mean(0), atol=1)
    assert np.allclose(matched.std(0), other.reshape(-1, 3).std(0), atol=3)
    grey = np.full((8, 8, 3), 77, np.uint8)
    assert np.abs(match_colours(image, grey).astype(int) - 77).max() <= 2
    assert np.abs(match_colours(other, other).astype(int) - other).max() <= 1, "nothing to change"


def test_a_clip_follows_from_its_seed_whatever_the_sizes() -> None:
    (image, label), (ground, ground_label) = scene(0), scene(2)
    specs = [ClipSpec(4, 32, seed, static_augmentation()) for seed in (1, 1, 2)]
    bigger = np.kron(ground, np.ones((4, 4, 1), np.uint8)), np.kron(ground_label, np.ones((4, 4), np.uint8))
    first, again, other = (synthesise_pasted(image, label, *bigger, spec=spec) for spec in specs)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    empty = synthesise_pasted(image, np.zeros_like(label), ground, ground_label, spec=specs[0])
    assert set(np.unique(empty[1])) <= {0, 1, 2}
    full = synthesise_pasted(image, label, ground, np.full_like(ground_label, 255), spec=specs[0])
    assert full[1].max() <= 2, "an id without room is background"


def test_a_run_takes_them_where_it_synthesises_clips(tmp_path: Path) -> None:
    shards = make_shards(tmp_path)
    affine = config_of(shards, tmp_path, **{"data.static_share": ((0.0, 0.5),)})
    pasted = override(affine, {"data.static_clips": "pasted"})
    assert len({digest(affine), digest(pasted), digest(override(affine, {"data.static_clips": "layers"}))}) == 3
    streams = zip(local_stream(affine).batches(), local_stream(pasted).batches(), strict=True)
    differ = [not np.array_equal(a["frames"], b["frames"]) for a, b in streams]
    assert sum(differ) == 4, "every second step, and no other"
    plan = Plan([ShardIndex.load(shards)], pasted.data, seed=0, steps=pasted.train.steps)
    clips = [plan.clip(position) for position in range(64)]
    assert all((clip.merged is not None) == clip.static for clip in clips)
    assert any(clip.merged.video != clip.video for clip in clips if clip.merged)
    assert all(len(clip.merged.frames) == 1 for clip in clips if clip.merged), "one labelled image, not a video"
