"""A network whose parts are graphs predicts what it predicts without, over whole videos."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from batches import make_batch

from ovos_ray.evaluate.infer.graphed import GraphedNetwork
from ovos_ray.evaluate.infer.propagator import Propagator
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks import build

TINY = ("stcn-tiny", "xmem-tiny", "cutie-tiny")
LONG = {
    "long_term": True,
    "max_frames": 3,
    "min_frames": 2,
    "num_prototypes": 4,
    "max_tokens": 40,
    "buffer_tokens": 0,
    "memory_interval": 1,
}


def predict(network: Any, settings: InferenceSettings, sample: int, side: int = 72) -> tuple[list[torch.Tensor], Any]:
    """Follows one object, then two from the fourth frame on, over twelve frames, in a memory that forgets."""
    batch = make_batch(2, clip_length=12, side=side)
    frames, labels = batch["frames"][sample].float() / 255, batch["labels"][sample]
    propagator = Propagator(network, settings)
    given = {0: (labels[0] == 1).to(torch.uint8), 3: labels[3]}
    found = [propagator.step(frame, given.get(t)) for t, frame in enumerate(frames)]
    return [probabilities for probabilities in found if probabilities is not None], propagator


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("changes", [{}, LONG], ids=["published", "long-term"])
def test_predictions_are_equal(name: str, changes: dict[str, Any]) -> None:
    network = build(name, seed=1).eval()
    settings = InferenceSettings.of(network, **changes if name != "stcn-tiny" else {"memory_interval": 2})
    expected, _ = predict(network, settings, 1)
    graphed = GraphedNetwork(network, calls_before=1)
    for _ in range(2):  # the second video finds what the first has captured
        found, _ = predict(graphed, settings, 1)
        assert len(found) == len(expected) == 12
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(graphed.graphs) >= 4
    other, _ = predict(graphed, settings, 0)
    assert not torch.equal(other[5], found[5][: len(other[5])])


@pytest.mark.parametrize("name", TINY)
def test_two_videos_at_a_time_do_not_disturb_each_other(name: str) -> None:
    network = build(name, seed=1).eval()
    settings = InferenceSettings.of(network, memory_interval=2)
    graphed = GraphedNetwork(network, calls_before=0)
    batch = make_batch(2, clip_length=8, side=64)

    def follow(networks: list[Any]) -> list[np.ndarray]:
        runs = [Propagator(one, settings) for one in networks]
        rows = [[], []]
        for t in range(8):
            for sample, run in enumerate(runs):
                mask = (batch["label"][sample] == 1).to(torch.uint8) if t == 0 else None
                rows[sample].append(run.step(batch["frames"][sample, t].float() / 255, mask).numpy())
        return [np.stack(row) for row in rows]

    expected, found = follow([network, copy.deepcopy(network)]), follow([graphed, graphed])
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(expected[0], expected[1])


def test_lower_precision_is_part_of_what_is_captured() -> None:
    network = build("xmem-tiny").eval()
    settings = InferenceSettings.of(network)
    graphed = GraphedNetwork(network, calls_before=0)
    exact, _ = predict(graphed, settings, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, _ = predict(network, settings, 1)
        rounded, _ = predict(graphed, settings, 1)
    assert all(torch.equal(a, b) for a, b in zip(rounded, expected, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(rounded, exact, strict=True))
