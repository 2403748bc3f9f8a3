"""The two walks of a step: where each starts, what passes between them, and what is logged of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import TWO_STEP, largest_difference, loss_and_gradients, make_batch, rng
from torch import Tensor

from ovos_ray.config import LossConfig
from ovos_ray.methods import losses, one_shot, one_shot_loss, propagation
from ovos_ray.methods.numerics import Numerics
from ovos_ray.networks import VOSNetwork, build


class Spy:
    """Records what is propagated, and may put another mask in place of the inferred one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mask: Tensor | None = None) -> None:
        self.masks: list[Tensor] = []
        self.orders: list[list[int]] = []
        self.logits: list[Tensor] = []
        self.gradient: list[bool] = []
        propagate = propagation.propagate

        def spying(network: VOSNetwork, frames: Tensor, masks: Tensor, order: Sequence[int], **settings: Any) -> Any:
            outputs = propagate(network, frames, masks, order, **settings)
            self.masks.append(masks)
            self.orders.append(list(order))
            self.logits.append(outputs[-1])
            self.gradient.append(torch.is_grad_enabled())
            return outputs

        monkeypatch.setattr(one_shot, "propagate", spying)
        if mask is not None:
            monkeypatch.setattr(one_shot, "_walk_forward", lambda *_: mask)


def test_the_forward_walk_has_no_gradient_and_the_backward_walk_starts_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, spy = make_batch(2), Spy(monkeypatch)
    one_shot_loss(build("xmem-tiny"), batch, TWO_STEP, rng())
    assert spy.gradient == [False, True]
    assert spy.orders[0] == [0, 1, 2, 3, 4]
    assert (spy.orders[1][0], spy.orders[1][-1], len(spy.orders[1])) == (4, 0, 3)
    assert not spy.logits[0].requires_grad
    assert not spy.masks[1].requires_grad
    assert spy.logits[1].requires_grad
    assert torch.equal(spy.masks[0], torch.stack([batch["label"] == 1, batch["label"] == 2], 1).float())
    assert torch.equal(spy.masks[1], spy.logits[0].softmax(1)[:, 1:])


@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny"])
def test_the_label_reaches_the_backward_walk_only_through_the_predicted_mask(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    network, batch = build(name), make_batch(2)
    changed = batch | {"label": batch["label"].flip(1)}
    mask = torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with monkeypatch.context() as patch:
        spy = Spy(patch, mask)
        loss, _ = one_shot_loss(network, batch, TWO_STEP, rng())
        other, _ = one_shot_loss(network, changed, TWO_STEP, rng())
    assert torch.equal(spy.logits[0], spy.logits[1])
    assert loss != other
    spy = Spy(monkeypatch)
    one_shot_loss(network, batch, TWO_STEP, rng())
    one_shot_loss(network, changed, TWO_STEP, rng())
    assert not torch.equal(spy.logits[1], spy.logits[3])


def test_nothing_is_detached_inside_the_backward_walk() -> None:
    # The mask encoder learns from the intermediate frames too: with gradient stopped there it would learn less.
    network = build("stcn-tiny")
    batch = make_batch(2)
    _, whole = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, TWO_STEP, rng()))
    segment = network.segment

    def cutting(*arguments: Any, **settings: Any) -> Any:
        logits, state = segment(*arguments, **settings)
        return logits, replace(state, masks=state.masks.detach())

    network.segment = cutting  # type: ignore[method-assign]
    loss, _ = one_shot_loss(network, batch, TWO_STEP, rng())
    loss.backward()  # type: ignore[no-untyped-call]
    cut = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert largest_difference(cut, whole) > 1e-3


def test_reference_masks_are_soft_or_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch, spy = build("stcn-tiny"), make_batch(2), Spy(monkeypatch)
    for kind in ("soft", "hard"):
        one_shot_loss(network, batch, replace(TWO_STEP, reference_mask=kind), rng())
    soft, hard = spy.masks[1], spy.masks[3]
    assert ((soft > 0) & (soft < 1)).float().mean() > 0
    assert ((hard == 0) | (hard == 1)).all()
    winner = spy.logits[2].argmax(1)
    assert torch.equal(hard, torch.stack([winner == 1, winner == 2], 1).float())


@pytest.mark.parametrize("choice", ["draw", "merge"])
def test_empty_reference_has_one_object_and_no_forward_walk(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    batch, spy = make_batch(4), Spy(monkeypatch)
    targets: list[Tensor] = []
    compare = losses.frame_losses

    def spying(logits: Tensor, label: Tensor, *rest: Any, **settings: Any) -> Any:
        targets.append(label)
        return compare(logits, label, *rest, **settings)

    monkeypatch.setattr(one_shot, "frame_losses", spying)
    config = replace(TWO_STEP, reference="empty", empty_objects=choice)  # type: ignore[arg-type]
    for seed in range(6):
        one_shot_loss(build("xmem-tiny"), batch, config, rng(seed), max_objects=2)
    assert len(spy.masks) == 6
    assert all(mask.shape == (4, 1, 32, 32) and not mask.any() for mask in spy.masks)
    label = batch["label"]
    if choice == "merge":
        assert all(torch.equal(target > 0, label > 0) for target in targets)
        return
    drawn = [[1 if torch.equal(t[b] > 0, label[b] == 1) else 2 for b in range(4)] for t in targets]
    assert all(torch.equal(t[b] > 0, label[b] == d[b]) for t, d in zip(targets, drawn, strict=True) for b in range(4))
    assert {d[0] for d in drawn} == {1}
    assert {d[1] for d in drawn} == {1, 2}


def test_a_lower_precision_rollout_leaves_gradients_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, network, spy = make_batch(2), build("xmem-tiny"), Spy(monkeypatch)
    kinds = {
        "same": Numerics(),
        "rollout": Numerics(rollout=torch.bfloat16),
        "all": Numerics(autocast=torch.bfloat16, rollout=torch.bfloat16),
        "recompute": Numerics(recompute=True),
    }
    results = {
        kind: loss_and_gradients(network, lambda n, k=numerics: one_shot_loss(n, batch, TWO_STEP, rng(), numerics=k))  # type: ignore[misc]
        for kind, numerics in kinds.items()
    }
    loss, gradients = results["same"]
    for kind, (found, with_kind) in results.items():
        assert found.item() == pytest.approx(loss.item(), rel=3e-2)
        assert with_kind.keys() == gradients.keys()
        for name in gradients:
            left, right = with_kind[name].flatten().double(), gradients[name].flatten().double()
            if right.norm() > 1e-3:
                assert torch.cosine_similarity(left, right, dim=0) > 0.9, (kind, name)
    assert torch.equal(results["recompute"][0], loss)
    assert largest_difference(results["recompute"][1], gradients) < 1e-6
    assert not torch.equal(spy.masks[1], spy.masks[3])


def test_logged_scalars() -> None:
    batch, network = make_batch(3), build("xmem-tiny")
    batch["weight"][1] = 0
    loss, scalars = one_shot_loss(network, batch, replace(TWO_STEP, loss=LossConfig()), rng())
    of_reference = {f"reference_{name}" for name in ("foreground", "copy", "confidence", "iou", "identity")}
    assert set(scalars) == {"loss", "cross_entropy", "dice", "iou"} | of_reference
    assert not any(value.requires_grad for value in scalars.values())
    assert scalars["loss"] == loss
    assert scalars["loss"].item() == pytest.approx((scalars["cross_entropy"] + scalars["dice"]).item(), rel=1e-6)


def test_copying_the_label_is_logged_as_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(2)
    copied = torch.stack([batch["label"] == 1, batch["label"] == 2], 1).float()
    Spy(monkeypatch, copied)
    _, scalars = one_shot_loss(build("stcn-tiny"), batch, TWO_STEP, rng())
    assert scalars["reference_copy"] == 1
    assert scalars["reference_foreground"].item() == pytest.approx((80 + 160) / 2 / 32**2)
    Spy(monkeypatch, torch.zeros_like(copied))
    _, scalars = one_shot_loss(build("stcn-tiny"), batch, TWO_STEP, rng())
    assert scalars["reference_copy"] == 0
