"""One-shot training against two plain propagations written out, and the properties the method promises."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import (
    double_network,
    largest_difference,
    loss_and_gradients,
    make_batch,
    part,
    relative_distance,
)
from torch import Tensor

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.errors import ConfigError
from ovos_ray.methods import backward_order, canonical_strategy, losses, one_shot, one_shot_loss, propagation
from ovos_ray.methods.numerics import Numerics
from ovos_ray.networks import VOSNetwork, build
from ovos_ray.networks.base import MemoryFrame, Readout
from ovos_ray.networks.memory import read
from ovos_ray.seeding import BatchRng, generator

PLAIN = LossConfig(cross_entropy="plain")
PARTS = ("cross_entropy", "dice", "auxiliary")
TWO_STEP = MethodConfig(backward="2-step", loss=PLAIN)
STRATEGIES = [("stcn-tiny", "1-step"), ("stcn-tiny", "2-step"), ("stcn-tiny", "T-step")]
STRATEGIES += [("xmem-tiny", "2-step"), ("xmem-tiny", "3-step"), ("xmem-tiny", "T-step")]
STRATEGIES += [("cutie-tiny", "2-step"), ("cutie-tiny", "T-step")]


def rng(seed: int = 3) -> np.random.Generator:
    return generator(seed, 0, "step")


def naive_propagation(
    network: VOSNetwork, frames: Tensor, masks: Tensor, order: Sequence[int], draws: BatchRng
) -> Tensor:
    """The logits (1, 1+N, H, W) of the last frame of the order, for one clip (T, 3, H, W)."""
    state = network.start(masks)
    memory: list[MemoryFrame] = []
    logits = masks
    for place, t in enumerate(order):
        features = network.encode(frames[t : t + 1])
        last = place == len(order) - 1
        if place:
            chosen = memory
            if network.num_reference_frames is not None and len(memory) > network.num_reference_frames:
                kept = int(network.keeps_first_reference)
                limit = network.num_reference_frames - kept
                picked = draws.per_sample[0].choice(len(memory) - kept, limit, replace=False)
                chosen = memory[:kept] + [memory[kept + i] for i in sorted(picked)]
            value = read(
                torch.cat([m.key.flatten(2) for m in chosen], 2),
                None if chosen[0].shrinkage is None else torch.cat([m.shrinkage.flatten(2) for m in chosen], 2),  # type: ignore[union-attr]
                torch.cat([m.value.flatten(3) for m in chosen], 3),
                features.key.flatten(2),
                None if features.selection is None else features.selection.flatten(2),
            )
            summaries = [m.summary for m in memory if m.summary is not None]
            readout = Readout(
                value=value.view(*value.shape[:3], *features.key.shape[-2:]),
                summary=torch.stack(summaries).sum(0) if summaries else None,
            )
            logits, state = network.segment(features, readout, state, update_sensory=not last)
        if not last:
            deep = place == 0 or (network.recurrent and draws.shared.random() < network.deep_update_probability)
            frame, state = network.memorise(features, state, deep_update=bool(deep))
            memory.append(frame)
    return logits


def naive_one_shot(network: VOSNetwork, batch: dict[str, Tensor], backward: str) -> Tensor:
    """Section 3 of the paper, clip by clip; cross-entropy and dice by their formulas."""
    losses = []
    for b in range(len(batch["frames"])):
        draws = BatchRng.of(rng(), batch["position"].tolist())
        draws = BatchRng(draws.shared, draws.per_sample[b : b + 1])
        frames, count = batch["frames"][b].double() / 255, int(batch["num_objects"][b])
        last = len(frames) - 1
        between = sorted(range(1, last), reverse=True)
        if backward != "T-step":
            number = int(backward[0]) - 1
            drawn = draws.shared.choice(last - 1, number, replace=False).tolist() if number else []
            between = sorted((1 + t for t in drawn), reverse=True)
        masks = torch.stack([batch["label"][b] == 1 + k for k in range(count)])[None].double()
        with torch.no_grad():
            forward = naive_propagation(network, frames, masks, range(last + 1), draws)
            predicted = torch.softmax(forward, 1)[:, 1:]
        logits = naive_propagation(network, frames, predicted, [last, *between, 0], draws)
        probability = torch.softmax(logits, 1)[0]
        label = batch["label"][b].long()
        entropy = -probability.gather(0, label[None]).log().mean()
        # The second of two objects is padding where there is one: an empty target and a probability of about 1e-7.
        per_object = [
            1
            - (2 * probability[1 + k][label == 1 + k].sum() + 1)
            / (probability[1 + k].sum() + (label == 1 + k).sum() + 1)
            for k in range(count)
        ]
        losses.append(entropy + torch.stack(per_object).sum() / 2)
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("name", "backward"), STRATEGIES)
def test_strategies_equal_two_plain_propagations(name: str, backward: str) -> None:
    both = part(make_batch(4), slice(1, None, 2))
    config = MethodConfig(backward=backward, loss=PLAIN)
    network = double_network(name)
    loss, gradients = loss_and_gradients(network, lambda n: one_shot_loss(n, both, config, rng()))
    expected, wanted = loss_and_gradients(network, lambda n: (naive_one_shot(n, both, backward), {}))
    other, _ = one_shot_loss(network, both, config, rng(4))
    # Written out, a padded object does not exist; batched, it has probability 1e-7.
    mixed, _ = one_shot_loss(network, make_batch(2), config, rng())
    assert mixed.item() == pytest.approx(naive_one_shot(network, make_batch(2), backward).item(), rel=2e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert largest_difference(gradients, wanted) < 1e-9
    if backward in ("2-step", "3-step"):
        assert other.item() != pytest.approx(expected.item(), rel=1e-7)


@pytest.mark.parametrize(("name", "backward"), STRATEGIES)
def test_encoding_each_frame_once_equals_two_plain_passes(name: str, backward: str) -> None:
    batch = make_batch()
    fast = MethodConfig(backward=backward, loss=PLAIN)
    plain = replace(fast, share_features=False)
    network = double_network(name)
    left = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, fast, rng()))
    right = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, plain, rng()))
    other = loss_and_gradients(double_network(name, seed=1), lambda n: one_shot_loss(n, batch, plain, rng()))
    assert left[0].item() == pytest.approx(right[0].item(), rel=1e-9)
    assert largest_difference(left[1], right[1]) < 1e-9
    assert largest_difference(left[1], other[1]) > 1e-2

    single = build(name)
    left = loss_and_gradients(single, lambda n: one_shot_loss(n, batch, fast, rng()))
    right = loss_and_gradients(single, lambda n: one_shot_loss(n, batch, plain, rng()))
    assert left[0].item() == pytest.approx(right[0].item(), rel=1e-4)
    assert relative_distance(left[1], right[1]) < 1e-4


@pytest.mark.parametrize(("share", "images"), [(True, 2 * 5), (False, 2 * (5 + 3))])
def test_each_frame_is_encoded_once(monkeypatch: pytest.MonkeyPatch, share: bool, images: int) -> None:
    network = build("xmem-tiny")
    with_gradient: Counter[bool] = Counter()
    encode = network.encode

    def counting(x: Tensor) -> Any:
        with_gradient[torch.is_grad_enabled()] += len(x)
        return encode(x)

    monkeypatch.setattr(network, "encode", counting)
    one_shot_loss(network, make_batch(2), replace(TWO_STEP, share_features=share), rng())
    assert with_gradient.total() == images
    assert with_gradient[True] == 2 * 3


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


def test_orders_of_the_strategies() -> None:
    assert backward_order("T-step", 5, rng()) == [4, 3, 2, 1, 0]
    assert backward_order("1-step", 5, rng()) == [4, 0]
    assert backward_order("4-step", 5, rng()) == [4, 3, 2, 1, 0]
    draws = rng()
    middles = Counter(backward_order("2-step", 8, draws)[1] for _ in range(6000))
    assert sorted(middles) == [1, 2, 3, 4, 5, 6]
    assert all(850 < count < 1150 for count in middles.values())
    for _ in range(200):
        order = backward_order("4-step", 8, draws)
        assert (order[0], order[-1], len(set(order))) == (7, 0, 5)
        assert order == sorted(order, reverse=True)


def test_strategies_that_are_the_same_have_one_name() -> None:
    assert canonical_strategy("2-step", 3) == canonical_strategy("T-step", 3) == "T-step"
    assert canonical_strategy("2-step", 8) == "2-step"
    assert canonical_strategy("7-step", 8) == "T-step"
    batch, network = make_batch(2, 3), build("xmem-tiny")
    losses = [one_shot_loss(network, batch, replace(TWO_STEP, backward=b), rng())[0] for b in ("2-step", "T-step")]
    assert torch.equal(*losses)


@pytest.mark.parametrize(("strategy", "clip_length"), [("3-step", 3), ("2 step", 5), ("0-step", 5), ("T-step", 1)])
def test_strategies_that_do_not_exist_are_refused(strategy: str, clip_length: int) -> None:
    with pytest.raises(ConfigError, match=r"method\.backward"):
        canonical_strategy(strategy, clip_length)


@pytest.mark.parametrize(("backward", "clip_length"), [("1-step", 5), ("T-step", 2)])
def test_one_step_back_is_refused_for_recurrent_networks(backward: str, clip_length: int) -> None:
    batch, config = make_batch(2, clip_length), MethodConfig(backward=backward, loss=PLAIN)
    with pytest.raises(ConfigError, match=r"sensory update.*section 3\.4"):
        one_shot_loss(build("xmem-tiny"), batch, config, rng())
    one_shot_loss(build("stcn-tiny"), batch, config, rng())
    one_shot_loss(build("xmem-tiny", hidden_dim=0), batch, config, rng())


def test_one_step_back_leaves_the_sensory_update_untrained() -> None:
    batch, network = make_batch(2), build("xmem-tiny")
    forced = MethodConfig(backward="1-step", allow_untrained_sensory=True, loss=PLAIN)
    _, one = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, forced, rng()))
    _, two = loss_and_gradients(network, lambda n: one_shot_loss(n, batch, TWO_STEP, rng()))
    untrained = {name for name, _ in network.named_parameters() if name not in one}
    assert untrained
    assert all(name.startswith("decoder.hidden_update.") for name in untrained)
    assert all(name in two for name, _ in network.named_parameters())
    assert two["decoder.hidden_update.transform.weight"].abs().max() > 0


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


def test_logged_scalars() -> None:
    batch, network = make_batch(3), build("xmem-tiny")
    batch["weight"][1] = 0
    loss, scalars = one_shot_loss(network, batch, replace(TWO_STEP, loss=LossConfig()), rng())
    assert set(scalars) == {"loss", "cross_entropy", "dice", "iou", "reference_foreground", "reference_copy"}
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


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["stcn", "xmem", "cutie-base", "cutie-small"])
def test_golden_values_of_the_published_networks(shared_root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    golden = np.load(shared_root / "golden" / f"{name}.npz")
    specification = importlib.util.spec_from_file_location("seeded", shared_root / "golden" / "seeded_weights.py")
    assert specification is not None
    assert specification.loader is not None
    seeded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(seeded)
    network = build(name)
    network.load_state_dict(seeded.seeded_state_dict(network.state_dict()))
    network.deep_update_probability = 0.0
    frames = torch.from_numpy(golden["frames"]).permute(0, 3, 1, 2)[None]
    label = torch.from_numpy(golden["labels"][:1])
    one = torch.ones(1)
    batch = {"frames": frames, "label": label, "num_objects": 2 * one.long(), "weight": one, "position": one}
    reference = torch.from_numpy(golden["forward/prob_T"]).float().view(1, 2, *label.shape[1:])
    monkeypatch.setattr(one_shot, "_walk_forward", lambda *_: reference)
    loss_only = LossConfig(cross_entropy="plain", dice=False)
    seed = next(s for s in range(100) if backward_order("2-step", 4, BatchRng.of(rng(s), [1]).shared) == [3, 2, 0])
    for backward in ("1-step", "2-step", "T-step"):
        config = MethodConfig(backward=backward, allow_untrained_sensory=True, loss=loss_only)
        network.train()
        loss, gradients = loss_and_gradients(network, lambda n, c=config: one_shot_loss(n, batch, c, rng(seed)))  # type: ignore[misc]
        prefix = f"backward/{backward}/"
        assert loss.item() == pytest.approx(float(golden[prefix + "ce"]), rel=1e-4)
        norms = {
            k.removeprefix(prefix + "gradnorm/"): float(golden[k]) for k in golden if k.startswith(prefix + "grad")
        }
        assert len(norms) >= 5
        for key, norm in norms.items():
            found = float(gradients[key].norm()) if key in gradients else 0.0
            assert found == pytest.approx(norm, rel=2e-3, abs=1e-7), key
