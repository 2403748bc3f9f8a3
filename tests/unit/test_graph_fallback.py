"""What happens where a CUDA graph cannot be had: eager code takes its place, and the run says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import largest_difference, loss_and_gradients, make_batch, rng
from runs import config_of, local_stream
from torch import Tensor

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.evaluate.infer.graphed import GraphedNetwork
from ovos_ray.evaluate.infer.propagator import Propagator
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.methods.numerics import Numerics
from ovos_ray.methods.one_shot import one_shot_loss
from ovos_ray.networks import VOSNetwork, build, graphs
from ovos_ray.networks.graphs import Graphs
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

Fails = Callable[[int, Tensor], bool]


def fail_captures(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> list[int]:
    """Has captures fail by their number and first input; returns the numbers of those that were tried."""
    tried: list[int] = []
    real = graphs._Captured

    def captured(function: Any, inputs: tuple[Tensor, ...], pool: Any) -> Any:
        tried.append(len(tried))
        if fails(tried[-1], inputs[0]):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return real(function, inputs, pool)

    monkeypatch.setattr(graphs, "_Captured", captured)
    return tried


def double(x: Tensor) -> tuple[Tensor]:
    return (2 * x,)


def test_a_shape_that_fails_is_computed_and_the_others_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, found = fail_captures(monkeypatch, lambda _, x: len(x) == 2), Graphs()
    for _ in range(3):
        for size in (2, 3, 4):
            assert torch.equal(found("key", double, torch.ones(size))[0], torch.full((size,), 2.0))
    assert (len(tried), len(found), found.captures) == (3, 2, 2)
    assert found.failed == "1 of 3 captures failed: OutOfMemoryError: CUDA out of memory."


def test_where_every_shape_fails_no_more_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, found = fail_captures(monkeypatch, lambda *_: True), Graphs()
    for size in range(1, 9):
        assert torch.equal(found("key", double, torch.ones(size))[0], torch.full((size,), 2.0))
    assert (len(tried), len(found)) == (3, 0)
    assert (found.failed or "").startswith("all captures failed: OutOfMemoryError")


def test_more_shapes_than_are_kept_are_captured_ever_less_often() -> None:
    found = Graphs(limit=2)
    for call in range(900):
        x = torch.full((1 + call % 3,), float(call))
        assert torch.equal(found("key", double, x)[0], 2 * x)
    assert len(found) == 2
    assert 3 <= found.captures <= 3 * 4
    assert found.failed == "there were more shapes than the 2 graphs that are kept"


def test_what_graphs_keep_of_a_gpu_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [
        {"segment_pool_id": (0, 0), "total_size": 100, "allocated_size": 10},
        {"segment_pool_id": (0, 1), "total_size": 50, "allocated_size": 20},
        {"segment_pool_id": (0, 1), "total_size": 7, "allocated_size": 0},
    ]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    found = Graphs()
    assert found.pool_bytes() == 0
    found._pool, found.captures = (0, 1), 1
    assert found.pool_bytes() == 37


@pytest.mark.parametrize("share_features", [True, False])
@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
def test_a_roll_out_of_lower_precision_is_that_of_eager_code(name: str, share_features: bool) -> None:
    """Beside a way back in float32, whose features eager code shares with the roll-out."""
    network, batch = build(name, seed=1), make_batch(2, clip_length=7, side=40)
    config = MethodConfig(loss=LossConfig(cross_entropy="plain"), share_features=share_features)

    def step(found: Graphs | None) -> tuple[Tensor, Any]:
        def loss(net: VOSNetwork) -> tuple[Tensor, dict[str, Tensor]]:
            numerics = Numerics(rollout=torch.bfloat16, graphs=found)
            return one_shot_loss(net, batch, config, rng(3), max_objects=3, numerics=numerics)

        return loss_and_gradients(network, loss)

    found = Graphs()
    (expected, gradients), (loss, own) = step(None), step(found)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert largest_difference(own, gradients) < 1e-5
    assert bool(found.failed) == share_features
    assert found.captures == (0 if share_features else 1)


def test_masks_are_those_of_the_network_where_some_parts_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("xmem-tiny", seed=1).eval()
    batch, settings = make_batch(2, clip_length=8, side=64), InferenceSettings.of(network)

    def follow(one: Any) -> list[Tensor | None]:
        propagator, frames = Propagator(one, settings), batch["frames"][1].float() / 255
        return [propagator.step(frame, batch["label"][1] if t == 0 else None) for t, frame in enumerate(frames)]

    expected = follow(network)
    fail_captures(monkeypatch, lambda number, _: number % 2 == 1)
    graphed = GraphedNetwork(network, calls_before=0)
    for a, b in zip(follow(graphed), expected, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    assert graphed.graphs.captures > 0
    assert graphed.graphs.failed


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_says_how_its_roll_outs_were_computed(
    fails: bool, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_captures(monkeypatch, lambda *_: fails)
    config = config_of(shards, tmp_path, **{"train.rollout": "graph", "train.log_every": 2, "train.steps": 4})
    said: list[str] = []
    request = RunRequest(config, "none", "run", watcher=lambda record: said.append(json.dumps(record)))
    train_run(request, local_stream(config))
    result = RunFolder.of(config).result() or {}
    told = [line for line in said if "without a CUDA graph" in line]
    if fails:
        assert result["rollout"].startswith("eager: ")
        assert "OutOfMemoryError: CUDA out of memory." in result["rollout"]
        assert told
    else:
        assert (result["rollout"], told) == ("graph", [])
