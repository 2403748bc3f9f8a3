"""Clips of one labelled image whose objects go their own ways: true masks, smooth paths, filled holes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from runs import config_of, local_stream, make_shards

from ovos_ray.config import override
from ovos_ray.config.data_settings import static_augmentation
from ovos_ray.config.digest import digest
from ovos_ray.pixels.layered_clips import fill_holes, synthesise_layers
from ovos_ray.pixels.static_clips import ClipSpec

STILL = dataclasses.replace(
    static_augmentation(),
    horizontal_flip=0.0,
    clip_scale=(1.0, 1.0),
    clip_jitter=(0.0, 0.0, 0.0, 0.0),
    grayscale=0.0,
    frame_jitter=(0.0, 0.0, 0.0, 0.0),
    spline=0.0,
)
COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two squares, each of one colour, on black; so every pixel says whose it is."""
    label = np.zeros((64, 64), np.uint8)
    label[12:28, 12:28], label[34:54, 30:50] = 1, 2
    return COLOURS[label], label


def clip(seed: int, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    image, label = scene()
    augmentation = dataclasses.replace(STILL, **changes)  # type: ignore[arg-type]
    return synthesise_layers(
        image, label, spec=ClipSpec(num_frames=6, crop_size=64, seed=seed, augmentation=augmentation)
    )


@pytest.mark.parametrize("seed", range(8))
def test_masks_are_true_in_every_frame(seed: int) -> None:
    frames, labels = clip(seed)
    assert frames.shape == (6, 3, 64, 64)
    assert labels.shape == (6, 64, 64)
    for frame, label in zip(frames.transpose(0, 2, 3, 1).astype(int), labels, strict=True):
        nearest = np.abs(frame[:, :, None] - COLOURS.astype(int)).sum(3).argmin(2)
        assert (nearest != label).mean() < 0.02, "but for soft edges, colours say the same"


def test_objects_move_against_each_other_and_go_on_as_they_began() -> None:
    apart = []
    for seed in range(20):
        _, labels = clip(seed)
        centres = np.array(
            [
                [[a.mean() for a in np.nonzero(label == k)] for k in (1, 2)]
                for label in labels
                if {1, 2} <= set(label.flat)
            ]
        )
        if len(centres) < 6:
            continue  # one has left the crop
        way = centres[:, 0] - centres[:, 1]
        apart.append(np.abs(way[-1] - way[0]).sum())
        straight = way[0] + (way[-1] - way[0]) * np.linspace(0, 1, 6)[:, None]
        assert np.abs(way - straight).max() < 12, "cut by the border or by the other, but no leaps"
    assert len(apart) > 5
    assert np.median(apart) > 5


def test_a_clip_follows_from_its_seed() -> None:
    image, label = scene()
    specs = (ClipSpec(4, 32, seed, static_augmentation()) for seed in (1, 1, 2))
    first, again, other = (synthesise_layers(image, label, spec=spec) for spec in specs)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_holes_are_filled_with_background_alone() -> None:
    rng = np.random.default_rng(0)
    stripes = np.where(np.arange(64) % 8 < 4, 250, 120).astype(np.uint8)
    image = np.repeat(np.tile(stripes, (64, 1))[..., None], 3, 2)
    holes = np.zeros((64, 64), bool)
    holes[20:40, 20:44] = True
    filled = fill_holes(np.where(holes[..., None], np.uint8(0), image), holes, rng)
    assert filled.min() >= 100, "nothing of the object is left"
    assert np.array_equal(filled[:15], image[:15])
    assert filled[24:36, 24:40].std() > 40, "texture goes on, no smooth spot"


def test_a_run_takes_them_where_it_synthesises_clips(tmp_path: Path) -> None:
    shards = make_shards(tmp_path)
    affine = config_of(shards, tmp_path, **{"data.static_share": ((0.0, 0.5),)})
    layers = override(affine, {"data.static_clips": "layers"})
    assert digest(affine) != digest(layers)
    assert digest(override(layers, {"data.static_clips": "affine"})) == digest(affine)
    differ = [
        not np.array_equal(a["frames"], b["frames"])
        for a, b in zip(local_stream(affine).batches(), local_stream(layers).batches(), strict=True)
    ]
    assert sum(differ) == 4, "every second step, and no other"
