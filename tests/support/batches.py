"""Small batches and float64 networks for the tests of methods and training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.networks import VOSNetwork, build
from ovos_ray.seeding import generator

Gradients = dict[str, Tensor]
PLAIN = LossConfig(cross_entropy="plain")
TWO_STEP = MethodConfig(backward="2-step", loss=PLAIN)


def rng(seed: int = 3) -> np.random.Generator:
    return generator(seed, 0, "step")


def make_batch(num_samples: int = 4, clip_length: int = 5, side: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Moving bright squares on noise; every other clip has two objects."""
    draws = generator(seed, 0, "batch")
    frames = torch.from_numpy(draws.integers(0, 80, (num_samples, clip_length, 3, side, side), dtype="uint8"))
    labels = torch.zeros(num_samples, clip_length, side, side, dtype=torch.uint8)
    counts = [1 + sample % 2 for sample in range(num_samples)]
    for sample, count in enumerate(counts):
        for index in range(count):
            for t in range(clip_length):
                left, top = 3 + t + 2 * sample, 2 + 12 * index
                labels[sample, t, top : top + 10, left : left + 8] = 1 + index
                frames[sample, t, index, top : top + 10, left : left + 8] += 150
    return {
        "frames": frames,
        "labels": labels,
        "label": labels[:, 0],
        "num_objects": torch.tensor(counts),
        "weight": torch.ones(num_samples),
        "position": torch.arange(num_samples) + 100,
    }


def part(batch: dict[str, Tensor], samples: slice) -> dict[str, Tensor]:
    return {name: value[samples] for name, value in batch.items()}


def double_network(name: str, seed: int = 0) -> VOSNetwork:
    return build(name, seed=seed).double()


def loss_and_gradients(
    network: VOSNetwork, loss_of: Callable[[VOSNetwork], tuple[Tensor, dict[str, Tensor]]]
) -> tuple[Tensor, Gradients]:
    """The loss and the gradients by parameter name; parameters without gradient are left out."""
    network = copy.deepcopy(network)
    loss, _ = loss_of(network)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def largest_difference(left: Gradients, right: Gradients) -> float:
    """The largest difference of two sets of gradients, relative to the largest gradient of each parameter."""
    assert left.keys() == right.keys()
    assert left
    return max(
        float((left[name] - right[name]).abs().max() / right[name].abs().max().clamp(min=1e-6)) for name in right
    )


def relative_distance(left: Gradients, right: Gradients) -> float:
    """The norm of the difference of two gradients, all parameters together, relative to their norm."""
    assert left.keys() == right.keys()
    a, b = (torch.cat([gradients[name].flatten().double() for name in right]) for gradients in (left, right))
    return float((a - b).norm() / b.norm())
