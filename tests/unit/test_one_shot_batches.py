"""What a batch means: losses of samples are averaged whatever the split, and empty slots count for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import TWO_STEP, double_network, largest_difference, loss_and_gradients, make_batch, part, rng

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.methods import one_shot_loss
from ovos_ray.networks import build

PARTS = ("cross_entropy", "dice", "auxiliary")


@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(cross_entropy="points", num_points=100)])
def test_gradients_do_not_depend_on_the_split_over_workers(name: str, loss: LossConfig) -> None:
    batch, config = make_batch(4), MethodConfig(backward="T-step", loss=loss)
    batch["weight"][2] = 0.5

    def of(samples: slice, positions: int = 0) -> Any:
        piece = part(batch, samples)
        piece["position"] = piece["position"] + positions
        return loss_and_gradients(network, lambda n: one_shot_loss(n, piece, config, rng(), step=40_000, max_objects=2))

    network = double_network(name)
    whole, halves = of(slice(0, 4)), [of(slice(0, 2)), of(slice(2, 4))]
    other = of(slice(0, 4), positions=7)
    mean = {key: (halves[0][1][key] + halves[1][1][key]) / 2 for key in whole[1]}
    assert whole[0].item() == pytest.approx((halves[0][0] + halves[1][0]).item() / 2, rel=1e-10)
    assert largest_difference(mean, whole[1]) < 1e-10
    if name != "stcn-tiny" or loss.cross_entropy == "points":
        assert largest_difference(other[1], whole[1]) > 1e-6


def test_a_slot_of_zero_weight_contributes_exactly_zero() -> None:
    batch, network = make_batch(3), build("xmem-tiny")
    batch["weight"][1] = 0
    loss, gradients = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, TWO_STEP, rng(), max_objects=2))
    blank = {name: value.clone() for name, value in batch.items()}
    blank["frames"][1] = 0
    blank["label"][1] = 0
    same, unchanged = loss_and_gradients(network, lambda n: one_shot_loss(n, blank, TWO_STEP, rng(), max_objects=2))
    assert torch.equal(loss, same)
    assert all(torch.equal(gradients[name], unchanged[name]) for name in gradients)
    blank["weight"][1] = 1
    other, _ = one_shot_loss(network, blank, TWO_STEP, rng(), max_objects=2)
    assert other != loss
    kept = [one_shot_loss(network, part(batch, slice(b, b + 1)), TWO_STEP, rng(), max_objects=2)[0] for b in (0, 2)]
    assert loss.item() == pytest.approx((kept[0] + kept[1]).item() / 3, rel=1e-5)


def test_a_batch_of_empty_slots_has_zero_loss_and_gradient() -> None:
    batch = make_batch(2)
    batch["weight"][:] = 0
    batch["label"][:] = 0
    batch["num_objects"][:] = 0
    loss, gradients = loss_and_gradients(build("xmem-tiny"), lambda n: one_shot_loss(n, batch, TWO_STEP, rng()))
    assert loss == 0
    assert all(not gradient.any() for gradient in gradients.values())


def test_auxiliary_heads_of_cutie_are_trained() -> None:
    batch, network = make_batch(2), build("cutie-tiny")
    gradients = {}
    for weight in (0.0, 0.01):
        config = replace(TWO_STEP, loss=LossConfig(cross_entropy="points", num_points=200, auxiliary_weight=weight))
        loss, scalars = one_shot_loss(network, batch, config, rng())
        assert ("auxiliary" in scalars) is (weight > 0)
        assert loss.item() == pytest.approx(sum(float(v) for k, v in scalars.items() if k in PARTS), rel=1e-6)
        _, gradients[weight] = loss_and_gradients(network, lambda n, c=config: one_shot_loss(n, batch, c, rng()))  # type: ignore[misc]
    trained_by_them = set(gradients[0.01]) - set(gradients[0.0])
    assert trained_by_them
    assert {name for name, _ in network.named_parameters()} == set(gradients[0.01])
    assert all("pred" in name or "aux" in name for name in trained_by_them)
