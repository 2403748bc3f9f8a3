"""What the paper leaves to one-shot training alone: objects gone by frame T, whose T1, what the forward walk reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import PLAIN, TWO_STEP, double_network, largest_difference, loss_and_gradients, make_batch, part, rng
from torch import Tensor

from ovos_ray.config import ExperimentConfig, LossConfig, MethodConfig, override
from ovos_ray.config.digest import digest
from ovos_ray.methods import backward_order, one_shot, one_shot_loss, propagation
from ovos_ray.methods.losses import frame_losses, give_objects
from ovos_ray.methods.numerics import Numerics
from ovos_ray.networks import build
from ovos_ray.networks.graphs import Graphs
from ovos_ray.seeding import BatchRng

OWN = replace(TWO_STEP, shared_intermediate=False)
TODAY = {"method.vanished": "keep", "method.shared_intermediate": True, "method.rollout_memory": "training"}


def test_the_switches_are_off_and_leave_digests_as_they_were() -> None:
    plain = ExperimentConfig()
    assert digest(override(plain, TODAY)) == digest(plain)
    for key, value in {"vanished": "leave_out", "shared_intermediate": False, "rollout_memory": "all"}.items():
        assert digest(override(plain, {f"method.{key}": value})) != digest(plain)


# Objects that are gone by frame T


def test_an_object_that_is_given_has_no_part_in_any_loss() -> None:
    """Two objects and a background in a row of four pixels; the second object is given."""
    label = torch.tensor([[[0, 1, 2, 2]]])
    logits = torch.tensor([[2.0, 1.0, 0.0, 0.0], [1.0, 0.0, 3.0, 1.0], [0.0, 2.0, 1.0, 5.0]]).view(1, 3, 1, 4)
    logits = logits.double().requires_grad_()
    found = give_objects(logits, label, torch.tensor([[False, True]]))
    parts = frame_losses(found, label, torch.tensor([2]), LossConfig(cross_entropy="plain"))
    # Pixel 0: background 2 against object 1; pixel 1: object 0 against background 1; the others count as right.
    wrong = torch.tensor([-1.0, 1.0]).double()
    assert parts["cross_entropy"].item() == pytest.approx(float(wrong.exp().log1p().sum()) / 4, abs=1e-6)
    p = torch.sigmoid(torch.tensor([-1.0, -1.0]).double())
    expected = 1 - (2 * p[1] + 1) / (p.sum() + 1 + 1)
    assert parts["dice"].item() == pytest.approx(float(expected) / 2, abs=1e-6)
    (parts["cross_entropy"] + parts["dice"]).sum().backward()
    gradient = logits.grad
    assert gradient is not None
    assert gradient[0, 2].abs().max() == 0
    assert gradient[..., 2:].abs().max() == 0
    assert gradient[0, :2, 0, :2].abs().min() > 0.01


def test_given_objects_of_coarse_heads_are_given_there() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.uint8)
    label[0, :2, :2] = 1
    found = give_objects(torch.zeros(3, 1, 2, 2, 2), label, torch.tensor([[True]]))
    assert found.shape == (3, 1, 2, 2, 2)
    assert torch.equal(found.argmax(2), torch.tensor([[1, 0], [0, 0]]).expand(3, 1, 2, 2))


@pytest.mark.parametrize("loss", [PLAIN, LossConfig(cross_entropy="points", num_points=60)], ids=["plain", "points"])
@pytest.mark.parametrize("lost", [(), (1,), (1, 2)])
def test_what_the_forward_mask_does_not_show_is_left_out(
    lost: tuple[int, ...], loss: LossConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network finds object k of frame T only where it is not lost; the label of frame T decides nothing."""
    batch = part(make_batch(2), slice(1, 2))  # two objects
    mask = torch.zeros(1, 2, 32, 32).double()
    for index in {1, 2} - set(lost):
        mask[0, index - 1, 4 * index : 4 * index + 3, 5:9] = 0.8
    mask[0, 0, 30, 30] = 0.3  # not the likeliest anywhere
    monkeypatch.setattr(one_shot, "_walk_forward", lambda *_: mask)
    network = double_network("cutie-tiny")
    keep, leave = MethodConfig(loss=loss), MethodConfig(loss=loss, vanished="leave_out")
    kept = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, keep, rng()))
    loss_left, scalars = one_shot_loss(network, batch, leave, rng())
    left = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, leave, rng()))
    assert float(scalars["vanished_objects"]) == len(lost) / 2
    if not lost:
        assert loss_left.item() == kept[0].item()
        assert largest_difference(left[1], kept[1]) == 0
    elif len(lost) == 1:
        assert 0.01 < loss_left.item() < kept[0].item()
        assert largest_difference(left[1], kept[1]) > 0.01
    elif loss is PLAIN:
        assert loss_left.item() < 1e-6
        assert all(float(gradient.abs().max()) < 1e-6 for gradient in left[1].values())
        assert any(float(gradient.abs().max()) > 1e-2 for gradient in kept[1].values())


# Whose T1


def orders(batch: dict[str, Tensor], strategy: str, seed: int) -> list[list[int]]:
    draws = BatchRng.of(rng(seed), batch["position"].tolist())
    return [backward_order(strategy, batch["frames"].shape[1], one) for one in draws.per_sample]


@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
@pytest.mark.parametrize(("strategy", "share"), [("2-step", True), ("2-step", False), ("3-step", True)])
def test_own_frames_between_equal_the_samples_one_by_one(name: str, strategy: str, share: bool) -> None:
    batch = make_batch(4, clip_length=6)
    seed = next(s for s in range(50) if len({tuple(order) for order in orders(batch, strategy, s)}) > 2)
    network = double_network(name)
    config = replace(OWN, backward=strategy, share_features=share)
    loss, gradients = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, config, rng(seed), max_objects=2))

    def alone(n: Any) -> tuple[Tensor, dict[str, Tensor]]:
        losses = [one_shot_loss(n, part(batch, slice(k, k + 1)), config, rng(seed), max_objects=2)[0] for k in range(4)]
        return torch.stack(losses).mean(), {}

    expected, wanted = loss_and_gradients(network, alone)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert largest_difference(gradients, wanted) < 1e-5
    shared = replace(config, shared_intermediate=True)
    other, _ = one_shot_loss(network, batch, shared, rng(seed), max_objects=2)
    assert other.item() != pytest.approx(loss.item(), rel=1e-7)


def test_own_frames_are_those_of_the_order_each_sample_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(4, clip_length=6)
    walked: list[Tensor] = []
    real = one_shot.propagate

    def spy(network: Any, frames: Tensor, masks: Tensor, order: Any, **kwargs: Any) -> list[Tensor]:
        walked.append(frames[:, list(order)])
        return real(network, frames, masks, order, **kwargs)

    monkeypatch.setattr(one_shot, "propagate", spy)
    one_shot_loss(build("stcn-tiny"), batch, OWN, rng(5))
    expected = torch.stack(
        [clip[order] for clip, order in zip(batch["frames"], orders(batch, "2-step", 5), strict=True)]
    )
    assert torch.equal(walked[-1], expected.float() / 255)


@pytest.mark.parametrize("strategy", ["T-step", "1-step"])
def test_where_nothing_is_drawn_own_frames_change_nothing(strategy: str) -> None:
    network, batch = build("stcn-tiny"), make_batch(2)
    config = replace(TWO_STEP, backward=strategy)
    loss, _ = one_shot_loss(network, batch, config, rng())
    own, _ = one_shot_loss(network, batch, replace(config, shared_intermediate=False), rng())
    assert loss.item() == own.item()


# What the forward walk reads


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", ["xmem-tiny", "cutie-tiny"])
def test_the_forward_walk_reads_all_frames_before_and_the_way_back_those_of_training(
    name: str, graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = build(name), make_batch(2, clip_length=8)
    limit = network.num_reference_frames
    assert limit is not None
    counts: list[int] = []
    real = propagation._read

    def spy(memory: Any, references: Tensor | None, query: Any, *more: Any) -> Any:
        counts.append(len(memory) if references is None else references.shape[1])
        return real(memory, references, query, *more)

    monkeypatch.setattr(propagation, "_read", spy)
    numerics = Numerics(graphs=Graphs() if graph else None)
    few = [min(k, limit) for k in range(1, 8)]
    for kind, expected in (("training", few), ("all", list(range(1, 8)))):
        counts.clear()
        config = MethodConfig(backward="T-step", loss=PLAIN, rollout_memory=kind)  # type: ignore[arg-type]
        one_shot_loss(network, batch, config, rng(), numerics=numerics)
        assert counts == expected + few
