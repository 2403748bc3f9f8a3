"""The roll-out as a graph, on a CPU, where the same function is called with the same copies of its inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import Gradients, largest_difference, loss_and_gradients, make_batch, rng
from torch import Tensor

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.methods.numerics import Numerics
from ovos_ray.methods.one_shot import one_shot_loss
from ovos_ray.networks import VOSNetwork, build
from ovos_ray.networks.graphs import Graphs

TINY = ("stcn-tiny", "xmem-tiny", "cutie-tiny")
PLAIN = LossConfig(cross_entropy="plain")


def step(
    network: VOSNetwork, graphs: Graphs | None, seed: int = 3, clip_length: int = 7, side: int = 40, **changes: Any
) -> tuple[Tensor, Gradients]:
    batch = make_batch(2, clip_length=clip_length, side=side, seed=seed)
    config = MethodConfig(loss=PLAIN, **changes)

    def loss(net: VOSNetwork) -> tuple[Tensor, dict[str, Tensor]]:
        return one_shot_loss(net, batch, config, rng(seed), max_objects=3, numerics=Numerics(graphs=graphs))

    return loss_and_gradients(network, loss)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("changes", [{}, {"share_features": False}, {"reference_mask": "hard"}, {"backward": "T-step"}])
def test_a_graph_gives_the_loss_and_the_gradient_of_eager_code(name: str, changes: dict[str, Any]) -> None:
    """With sides that need padding, and more frames than are read: draws differ between steps, the graph does not."""
    network = build(name, seed=1)
    graphs = Graphs()
    for seed in range(3):
        expected, gradients = step(network, None, seed, **changes)
        loss, found = step(network, graphs, seed, **changes)
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        assert largest_difference(found, gradients) < 1e-3
    other, _ = step(network, graphs, 4, **changes)
    assert float(other) != pytest.approx(float(loss), rel=1e-3)


def test_one_graph_serves_all_draws_and_each_number_of_objects_has_its_own() -> None:
    network, graphs = build("xmem-tiny"), Graphs(limit=2)
    config, numerics = MethodConfig(loss=PLAIN), Numerics(graphs=graphs)
    batch = make_batch(2, clip_length=7)

    def run(batch: dict[str, Tensor], seed: int) -> None:
        with torch.no_grad():
            one_shot_loss(network, batch, config, rng(seed), max_objects=3, numerics=numerics)

    for seed in range(4):
        run(batch, seed)
    assert len(graphs) == 1
    for count, expected in ((2, 1), (1, 2), (3, 2)):  # the batch has two objects; the third graph takes a place
        run({**batch, "num_objects": torch.tensor([1, count])}, 0)
        assert len(graphs) == expected


def test_new_weights_are_used() -> None:
    network, graphs = build("xmem-tiny"), Graphs()
    numerics, batch = Numerics(graphs=graphs), make_batch(2)

    def loss(numerics: Numerics) -> float:
        with torch.no_grad():
            return float(one_shot_loss(network, batch, MethodConfig(loss=PLAIN), rng(), numerics=numerics)[0])

    before = loss(numerics)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    assert loss(numerics) == pytest.approx(loss(Numerics()), rel=1e-5)
    assert loss(numerics) != pytest.approx(before, rel=1e-4)
    assert len(graphs) == 1


def test_the_function_sees_copies_that_the_next_call_overwrites() -> None:
    graphs, seen = Graphs(), []

    def double(x: Tensor) -> tuple[Tensor]:
        seen.append(x)
        return (2 * x,)

    for value in (1.0, 2.0):
        assert torch.equal(graphs("key", double, torch.full((3,), value))[0], torch.full((3,), 2 * value))
    assert seen[0] is seen[1]
    assert torch.equal(seen[0], torch.full((3,), 2.0))
    graphs("key", double, torch.ones(4))
    graphs("another", double, torch.ones(4))
    assert len(graphs) == 3
