"""Losses against hand arithmetic and against loops written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ovos_ray.config import LossConfig
from ovos_ray.methods.losses import (
    cross_entropy,
    dice,
    frame_losses,
    mask_iou,
    point_losses,
    sample_points,
    weighted_mean,
)
from ovos_ray.seeding import generator

POINTS = LossConfig(cross_entropy="points", num_points=40)


def logits_and_label(num_samples: int = 2, num_objects: int = 3, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    draws = generator(1, 0, "test")
    logits = torch.from_numpy(draws.normal(size=(num_samples, 1 + num_objects, size, size)) * 3)
    label = torch.from_numpy(draws.integers(0, 3, (num_samples, size, size)).astype(np.uint8))
    return logits, label, torch.tensor([2] * num_samples)


def generators(num: int) -> list[np.random.Generator]:
    return [generator(7, position, "points") for position in range(num)]


def test_cross_entropy_by_hand() -> None:
    # Two pixels with two channels: -log(1/2), and -log(3/4) where the right channel has odds of 3 to 1.
    logits = torch.tensor([[[[0.0, math.log(3)]], [[0.0, 0.0]]]], dtype=torch.float64)
    label = torch.tensor([[[1, 0]]])
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert cross_entropy(logits, label, torch.tensor([1])).tolist() == pytest.approx([expected])
    assert cross_entropy(logits, label, torch.tensor([1]), 0.5).tolist() == pytest.approx([math.log(2)])


def test_padded_channels_take_no_part_in_cross_entropy() -> None:
    logits, label, _ = logits_and_label()
    logits.requires_grad_()
    num_objects = torch.tensor([1, 2])
    label = label.clamp(max=1)
    losses = cross_entropy(logits, label, num_objects)
    for sample, count in enumerate(num_objects):
        sliced = torch.nn.functional.cross_entropy(
            logits[sample : sample + 1, : 1 + count], label[sample : sample + 1].long()
        )
        assert losses[sample].item() == pytest.approx(sliced.item(), rel=1e-12)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 2:].abs().max() == 0
    assert logits.grad[0, :2].abs().max() > 0
    assert logits.grad[1, 3:].abs().max() == 0


def test_no_object_counts_as_one() -> None:
    logits, _, _ = logits_and_label()
    empty = torch.zeros(2, 6, 6, dtype=torch.uint8)
    assert torch.equal(
        cross_entropy(logits, empty, torch.tensor([0, 0])), cross_entropy(logits, empty, torch.tensor([1, 1]))
    )


@pytest.mark.parametrize(("step", "num_kept"), [(0, 36), (20_000, 36), (45_000, 20), (70_000, 5), (90_000, 5)])
def test_bootstrapping_keeps_the_hardest_pixels(step: int, num_kept: int) -> None:
    # 36 pixels: 36 · 0.575 = 20.7 and 36 · 0.15 = 5.4, both cut off to whole pixels.
    logits, label, num_objects = logits_and_label()
    parts = frame_losses(logits, label, num_objects, LossConfig(dice=False), step=step)
    assert list(parts) == ["cross_entropy"]
    for sample in range(2):
        pixels = []
        for row in range(6):
            for column in range(6):
                odds = logits[sample, :3, row, column].exp()
                pixels.append(-math.log(odds[int(label[sample, row, column])] / odds.sum()))
        expected = sum(sorted(pixels)[-num_kept:]) / num_kept
        assert parts["cross_entropy"][sample].item() == pytest.approx(expected, rel=1e-12)


def test_plain_cross_entropy_never_bootstraps() -> None:
    logits, label, num_objects = logits_and_label()
    plain = frame_losses(logits, label, num_objects, LossConfig(cross_entropy="plain", dice=False), step=10**6)
    assert torch.equal(plain["cross_entropy"], cross_entropy(logits, label, num_objects))


def test_dice_by_hand_counts_padded_objects() -> None:
    # One pixel pair; object 1 has probabilities 1/2 and 1/4 and covers the first pixel; object 2 is padding.
    probability = torch.tensor([[0.5, 0.75], [0.5, 0.25], [0.0, 0.0]], dtype=torch.float64).clamp(min=1e-30)
    logits = probability.log().view(1, 3, 1, 2)
    label = torch.tensor([[[1, 0]]])
    first = 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1)
    padded = 1 - 1 / 1
    assert dice(logits, label).item() == pytest.approx((first + padded) / 2)


def bilinear(channel: Tensor, x: float, y: float) -> float:
    """The value at (x, y) in [0, 1]² of pixels that are squares, with zeros outside."""
    height, width = channel.shape
    x, y = x * width - 0.5, y * height - 0.5
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += float(channel[row, column]) * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


@pytest.mark.parametrize("count", [1, 2])
def test_points_are_the_most_uncertain_ones(count: int) -> None:
    logits, _, _ = logits_and_label(1)
    num_objects = torch.tensor([count])
    points = sample_points(logits, num_objects, POINTS, generators(1))
    drawn = generators(1)[0].random((120 + 10, 2), dtype=np.float32)
    scores = []
    for x, y in drawn[:120]:
        values = sorted(bilinear(logits[0, channel], x, y) for channel in range(1 + count))
        scores.append(-abs(bilinear(logits[0, 1], x, y)) if count == 1 else values[-2] - values[-1])
    hardest = {tuple(drawn[i]) for i in np.argsort(scores)[-30:]}
    assert {tuple(p) for p in points[0, :30].float().numpy()} == hardest
    assert np.array_equal(points[0, 30:].float().numpy(), drawn[120:])


@pytest.mark.parametrize("count", [1, 2])
def test_point_losses_against_loops(count: int) -> None:
    logits, label, _ = logits_and_label(1)
    label = label.clamp(max=count)
    num_objects = torch.tensor([count])
    target = torch.stack([label == channel for channel in range(4)], 1).double()
    parts = point_losses(logits, target, num_objects, POINTS, generators(1))
    points = sample_points(logits, num_objects, POINTS, generators(1))[0]
    entropy, overlaps, sums = [], [0.0] * count, [0.0] * count
    for x, y in points.tolist():
        odds = [math.exp(bilinear(logits[0, channel], x, y)) for channel in range(1 + count)]
        wanted = [bilinear(target[0, channel], x, y) for channel in range(1 + count)]
        entropy.append(-sum(w * math.log(o / sum(odds)) for w, o in zip(wanted, odds, strict=True)))
        for k in range(count):
            probability = odds[1 + k] / sum(odds)
            overlaps[k] += probability * wanted[1 + k]
            sums[k] += probability + wanted[1 + k]
    assert parts["cross_entropy"].item() == pytest.approx(sum(entropy) / 40, rel=1e-6)
    expected = sum(1 - (2 * overlap + 1) / (total + 1) for overlap, total in zip(overlaps, sums, strict=True)) / count
    assert parts["dice"].item() == pytest.approx(expected, rel=1e-6)


def test_auxiliary_heads_are_weighted_and_may_be_coarse() -> None:
    logits, label, num_objects = logits_and_label()
    heads = [logits[..., ::2, ::2], logits[..., 1::2, 1::2]]
    auxiliary = {"sensory": heads[0][None], "query": heads[1][None]}
    parts = frame_losses(logits, label, num_objects, POINTS, auxiliary=auxiliary, generators=generators(2))
    draws = generators(2)
    target = torch.stack([label == channel for channel in range(4)], 1).double()
    each = [point_losses(head, target, num_objects, POINTS, draws) for head in (logits, *heads)]
    main, *others = [part["cross_entropy"] + part["dice"] for part in each]
    assert torch.allclose(parts["cross_entropy"] + parts["dice"], main)
    assert torch.allclose(parts["auxiliary"], 0.01 * (others[0] + others[1]))


def test_points_have_gradient_and_padding_has_none() -> None:
    logits, label, _ = logits_and_label()
    logits.requires_grad_()
    counts = torch.tensor([1, 2])
    parts = frame_losses(logits, label.clamp(max=1), counts, POINTS, generators=generators(2))
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 2:].abs().max() == 0
    assert logits.grad[1, 2].abs().max() > 0


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(dice=False), POINTS])
def test_a_sample_does_not_depend_on_its_batch(config: LossConfig) -> None:
    logits, label, _ = logits_and_label(3)
    counts = torch.tensor([2, 3, 2])
    heads = {"query": torch.stack([logits[..., ::2, ::2], logits[..., ::3, ::3].repeat(1, 1, 2, 2)[..., :3, :3]])}
    whole = frame_losses(logits, label, counts, config, step=50_000, auxiliary=heads, generators=generators(3))
    for sample in range(3):
        one = slice(sample, sample + 1)
        alone = frame_losses(
            logits[one],
            label[one],
            counts[one],
            config,
            step=50_000,
            auxiliary={name: head[:, one] for name, head in heads.items()},
            generators=generators(3)[one],
        )
        for name, part in alone.items():
            assert torch.allclose(part, whole[name][one], rtol=1e-12, atol=0)
    if config is POINTS:
        other = frame_losses(logits, label, counts, config, auxiliary=heads, generators=generators(4)[1:])
        assert not torch.allclose(other["cross_entropy"], whole["cross_entropy"])


def test_weighted_mean_divides_by_slots_and_ignores_empty_ones() -> None:
    losses = torch.tensor([1.0, torch.nan, 4.0, 2.0], requires_grad=True)
    mean = weighted_mean(losses, torch.tensor([1.0, 0.0, 0.5, 1.0]))
    assert mean.item() == (1 + 2 + 2) / 4
    mean.backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.25, 0.0, 0.125, 0.25]


def test_losses_are_computed_in_float32_at_least() -> None:
    logits, label, num_objects = logits_and_label()
    halved = frame_losses(logits.bfloat16(), label, num_objects, LossConfig())
    assert {part.dtype for part in halved.values()} == {torch.float32}
    assert frame_losses(logits, label, num_objects, LossConfig())["dice"].dtype == torch.float64


def test_mask_iou_by_hand() -> None:
    label = torch.tensor([[[1, 1, 0, 2]], [[0, 0, 0, 0]]], dtype=torch.uint8)
    found = torch.tensor([[[1, 0, 1, 2]], [[0, 0, 0, 0]]])
    logits = torch.nn.functional.one_hot(found, 4).permute(0, 3, 1, 2).float()
    assert mask_iou(logits, label, torch.tensor([2, 1])).tolist() == pytest.approx([(1 / 3 + 1) / 2, 1.0])
