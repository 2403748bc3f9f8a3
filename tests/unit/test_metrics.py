"""J and F against stored values of the official toolkit and against the definition, pixel by pixel."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from ovos_ray.evaluate.metrics import (
    boundary_accuracy,
    boundary_radius,
    object_scores,
    region_similarity,
    statistics,
)


def brute_region(pred, gt):
    inter = union = 0
    for p, g in zip(pred.flat, gt.flat, strict=True):
        inter += bool(p and g)
        union += bool(p or g)
    return inter / union if union else 1.0


def brute_contour(mask):
    height, width = mask.shape
    contour = set()
    for y in range(height):
        for x in range(width):
            right, below = x + 1 < width, y + 1 < height
            neighbours = [mask[y, x + 1]] if right else []
            neighbours += [mask[y + 1, x]] if below else []
            neighbours += [mask[y + 1, x + 1]] if right and below else []
            if any(bool(n) != bool(mask[y, x]) for n in neighbours):
                contour.add((y, x))
    return contour


def brute_boundary(pred, gt, radius):
    contours = brute_contour(pred), brute_contour(gt)
    if not contours[0] and not contours[1]:
        return 1.0
    if not contours[0] or not contours[1]:
        return 0.0

    def hits(some, others):
        near = [p for p in some if any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= radius**2 for q in others)]
        return len(near) / len(some)

    precision, recall = hits(*contours), hits(*contours[::-1])
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)
PAIRS = SHAPES.flatmap(lambda s: st.tuples(arrays(bool, s), arrays(bool, s), arrays(bool, s)))


@settings(deadline=None, max_examples=200)
@given(PAIRS, st.sampled_from([0.008, 0.1, 1, 2, 3, 5]))
def test_equals_the_definition(masks, bound_th):
    pred, gt, void = masks
    radius = boundary_radius(*gt.shape, bound_th)
    assert region_similarity(pred[None], gt[None])[0] == brute_region(pred, gt)
    assert boundary_accuracy(pred[None], gt[None], bound_th=bound_th)[0] == brute_boundary(pred, gt, radius)
    keep = ~void
    assert region_similarity(pred[None], gt[None], void[None])[0] == brute_region(pred & keep, gt & keep)
    with_void = boundary_accuracy(pred[None], gt[None], void[None], bound_th)[0]
    assert with_void == brute_boundary(pred & keep, gt & keep, radius)


IDS = (1, 2, 7, 200)
INDEX_PAIRS = SHAPES.flatmap(lambda s: st.tuples(*[arrays(np.uint8, s, elements=st.sampled_from((0, *IDS)))] * 2))


@settings(deadline=None)
@given(INDEX_PAIRS, st.sampled_from([IDS, (7,), (200, 1), tuple(range(1, 12))]))
def test_all_objects_in_one_pass_equal_each_alone(pair, ids):
    pred, gt = pair
    scores = object_scores(pred, gt, ids)
    radius = boundary_radius(*gt.shape)
    for (j, f), index in zip(scores, ids, strict=True):
        assert (j, f) == (
            brute_region(pred == index, gt == index),
            brute_boundary(pred == index, gt == index, radius),
        )


def blob(shape, *boxes):
    mask = np.zeros(shape, bool)
    for y0, y1, x0, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("pred", "gt", "j", "f"),
    [
        (blob((9, 9)), blob((9, 9)), 1.0, 1.0),
        (blob((9, 9), (2, 4, 2, 4)), blob((9, 9)), 0.0, 0.0),
        (blob((9, 9)), blob((9, 9), (2, 4, 2, 4)), 0.0, 0.0),
        (blob((9, 9), (0, 9, 0, 9)), blob((9, 9), (0, 9, 0, 9)), 1.0, 1.0),
        (blob((9, 9), (0, 9, 0, 9)), blob((9, 9), (0, 9, 0, 8)), 8 / 9, 0.0),  # a full frame has no boundary
        (blob((9, 9), (0, 1, 0, 1)), blob((9, 9), (0, 1, 0, 1)), 1.0, 1.0),
        (blob((9, 9), (8, 9, 8, 9)), blob((9, 9), (0, 1, 0, 1)), 0.0, 0.0),
        (blob((1, 1), (0, 1, 0, 1)), blob((1, 1)), 0.0, 1.0),
    ],
)
def test_empty_full_and_border_masks(pred, gt, j, f):
    assert region_similarity(pred[None], gt[None]) == pytest.approx([j])
    assert boundary_accuracy(pred[None], gt[None]) == pytest.approx([f])


def test_large_frames_equal_a_full_frame_disk_dilation():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:480, :854]
    masks = []
    for _ in range(2):
        noise = sum(
            np.sin(x / rng.uniform(20, 90) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(20, 90)) for _ in range(4)
        )
        masks.append(noise > 0.7)
    pred, gt = masks
    radius = boundary_radius(480, 854)
    assert radius == 8

    def contour(mask):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        return (mask != padded[1:, :-1]) | (mask != padded[:-1, 1:]) | (mask != padded[1:, 1:])

    def dilate(mask):
        padded, out = np.pad(mask, radius), np.zeros_like(mask)
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if dx**2 + dy**2 <= radius**2:
                    out |= padded[radius + dy : radius + dy + 480, radius + dx : radius + dx + 854]
        return out

    a, b = contour(pred), contour(gt)
    precision, recall = (a & dilate(b)).sum() / a.sum(), (b & dilate(a)).sum() / b.sum()
    expected = 2 * precision * recall / (precision + recall)
    assert 0.05 < expected < 0.95
    assert boundary_accuracy(pred[None], gt[None])[0] == expected


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(T, H, W\)"):
        region_similarity(np.zeros((2, 3, 3), bool), np.zeros((2, 3, 4), bool))
    with pytest.raises(ValueError, match=r"\(T, H, W\)"):
        boundary_accuracy(np.zeros((3, 3), bool), np.zeros((3, 3), bool))


def test_statistics_by_hand():
    summary = statistics(np.array([1.0, 0.8, 0.6, 0.5, 0.4, 0.2, 0.0]))
    assert summary.mean == pytest.approx(0.5)
    assert summary.recall == pytest.approx(3 / 7)  # strictly above 0.5
    # linspace(1, 7, 5) rounds to 1, 2 (2.5 is rounded up only by its 1e-10), 4, 6 (5.5), 7.
    edges = [math.floor(v + 0.5 + 1e-10) for v in (1, 2.5, 4, 5.5, 7)]
    assert edges == [1, 3, 4, 6, 7]
    assert summary.decay == pytest.approx((1.0 + 0.8 + 0.6) / 3 - (0.2 + 0.0) / 2)
    single = statistics(np.array([0.7]))
    assert (single.mean, single.recall, single.decay) == (0.7, 1.0, 0.0)
    with pytest.raises(ValueError, match="no frame"):
        statistics(np.zeros(0))


def test_decay_of_long_videos_does_not_wrap():
    values = np.linspace(1, 0, 1000)
    assert statistics(values).decay == pytest.approx(0.75, abs=0.002)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.shared
def test_official_values_of_merged_objects(shared_root):
    reference = json.loads((shared_root / "osvos-masks/reference.json").read_text())["davis2016"]
    assert len(reference) == 4
    for sequence, expected in reference.items():
        truth = sorted((shared_root / "davis-mini/Annotations/480p" / sequence).glob("*.png"))[1:-1]
        gt = np.stack([read(p) > 0 for p in truth])
        pred = np.stack([read(shared_root / "osvos-masks" / sequence / p.name) > 0 for p in truth])
        for name, values in (("J", region_similarity(pred, gt)), ("F", boundary_accuracy(pred, gt))):
            found = statistics(values)
            for key in ("mean", "recall", "decay"):
                assert getattr(found, key) == pytest.approx(expected[f"{name}_{key}"], abs=1e-9), (sequence, name, key)


@pytest.mark.shared
def test_official_values_of_several_objects(shared_root):
    reference = json.loads((shared_root / "osvos-masks/reference.json").read_text())["shifted"]
    assert len(reference) == 15
    for sequence in sorted({key.rsplit("_", 1)[0] for key in reference}):
        masks = [read(p) for p in sorted((shared_root / "osvos-masks" / sequence).glob("*.png"))]
        ids = range(1, int(masks[0].max()) + 1)
        scores = np.stack([object_scores(masks[t + 1], masks[t], ids) for t in range(1, len(masks) - 1)])
        for index in ids:
            expected = reference[f"{sequence}_{index}"]
            for column, name in enumerate("JF"):
                found = statistics(scores[:, index - 1, column])
                for key in ("mean", "recall", "decay"):
                    assert getattr(found, key) == pytest.approx(expected[f"{name}_{key}"], abs=1e-9), (sequence, index)
