"""One-shot training against two plain propagations written out, and frames encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import (
    PLAIN,
    TWO_STEP,
    double_network,
    largest_difference,
    loss_and_gradients,
    make_batch,
    part,
    relative_distance,
    rng,
)
from torch import Tensor

from ovos_ray.config import MethodConfig
from ovos_ray.methods import one_shot_loss
from ovos_ray.networks import VOSNetwork, build
from ovos_ray.networks.base import MemoryFrame, Readout
from ovos_ray.networks.memory import read
from ovos_ray.seeding import BatchRng

STRATEGIES = [("stcn-tiny", "1-step"), ("stcn-tiny", "2-step"), ("stcn-tiny", "T-step")]
STRATEGIES += [("xmem-tiny", "2-step"), ("xmem-tiny", "3-step"), ("xmem-tiny", "T-step")]
STRATEGIES += [("cutie-tiny", "2-step"), ("cutie-tiny", "T-step")]


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


def naive_one_shot(network: VOSNetwork, batch: dict[str, Tensor], backward: str, reference: str = "soft") -> Tensor:
    """Section 3 of the paper, clip by clip; cross-entropy and dice by their formulas.

    The reference of the backward walk is `soft`, `hard` or `empty` (section 4.4, with all objects as one).
    """
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
        label = batch["label"][b].long()
        if reference == "empty":
            label, count = (label > 0).long(), 1
            predicted = torch.zeros(1, 1, *label.shape, dtype=torch.float64)
        else:
            masks = torch.stack([label == 1 + k for k in range(count)])[None].double()
            with torch.no_grad():
                forward = naive_propagation(network, frames, masks, range(last + 1), draws)
                predicted = torch.softmax(forward, 1)[:, 1:]
            if reference == "hard":
                predicted = torch.stack([forward[0].argmax(0) == 1 + k for k in range(count)])[None].double()
        logits = naive_propagation(network, frames, predicted, [last, *between, 0], draws)
        probability = torch.softmax(logits, 1)[0]
        entropy = -probability.gather(0, label[None]).log().mean()
        # The second of two objects is padding where there is one: an empty target and a probability of about 1e-7.
        per_object = [
            1
            - (2 * probability[1 + k][label == 1 + k].sum() + 1)
            / (probability[1 + k].sum() + (label == 1 + k).sum() + 1)
            for k in range(count)
        ]
        losses.append(entropy + torch.stack(per_object).sum() / (1 if reference == "empty" else 2))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("name", "backward"), STRATEGIES)
def test_strategies_equal_two_plain_propagations(name: str, backward: str) -> None:
    both = part(make_batch(4), slice(1, None, 2))
    config = MethodConfig(backward=backward, loss=PLAIN)
    network = double_network(name)
    loss, gradients = loss_and_gradients(network, lambda n: one_shot_loss(n, both, config, rng()))
    expected, wanted = loss_and_gradients(network, lambda n: (naive_one_shot(n, both, backward), {}))
    other, _ = one_shot_loss(network, both, config, rng(5))
    # Written out, a padded object does not exist; batched, it has probability 1e-7.
    mixed, _ = one_shot_loss(network, make_batch(2), config, rng())
    assert mixed.item() == pytest.approx(naive_one_shot(network, make_batch(2), backward).item(), rel=2e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert largest_difference(gradients, wanted) < 1e-9
    if backward in ("2-step", "3-step"):
        assert other.item() != pytest.approx(expected.item(), rel=1e-7)


@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
@pytest.mark.parametrize("reference", ["hard", "empty"])
def test_hard_and_empty_references_equal_plain_propagations(name: str, reference: str) -> None:
    both = part(make_batch(4), slice(1, None, 2))
    hard = MethodConfig(backward="2-step", loss=PLAIN, reference_mask="hard")
    empty = MethodConfig(backward="2-step", loss=PLAIN, reference="empty", empty_objects="merge")
    config, network = hard if reference == "hard" else empty, double_network(name)
    loss, gradients = loss_and_gradients(network, lambda n: one_shot_loss(n, both, config, rng()))
    expected, wanted = loss_and_gradients(network, lambda n: (naive_one_shot(n, both, "2-step", reference), {}))
    soft = naive_one_shot(network, both, "2-step")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert largest_difference(gradients, wanted) < 1e-9
    assert loss.item() != pytest.approx(soft.item(), rel=1e-7)


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
