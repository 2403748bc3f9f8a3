"""The orders of the backward strategies, and which of them a network can be trained with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from batches import PLAIN, TWO_STEP, loss_and_gradients, make_batch, rng

from ovos_ray.config import MethodConfig
from ovos_ray.config.strategies import canonical_strategy
from ovos_ray.errors import ConfigError
from ovos_ray.methods import backward_order, one_shot_loss
from ovos_ray.networks import build


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
