"""Gradients that two workers send each other in bfloat16: both have the same weights, near those of float32."""

from __future__ import annotations

from pathlib import Path

import torch
from runs import Weights, config_of, local_stream, run_ranks, same

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, distributed, train_step

STEPS = 2


def train_a_rank(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    network = networks.build(config.network.name, seed=config.seed)
    module = distributed(TrainingModule(network, config))
    optimizer = build_optimizer(network, config.optimizer, torch.device("cpu"))
    gradients: list[Weights] = []
    for step, batch in enumerate(local_stream(config, rank, workers).batches()):
        train_step(module, batch, optimizer, config, step)
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    torch.save([*gradients, network.state_dict()], folder / f"{rank}.pt")


def test_two_ranks_agree_and_are_near_those_of_float32(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, **{"train.num_workers": 2, "train.steps": STEPS})
    found = {}
    for exchange in ("same", "bfloat16"):
        run_ranks(train_a_rank, override(config, {"train.gradient_exchange": exchange}), tmp_path / exchange, workers=2)
        first, second = (torch.load(tmp_path / exchange / f"{rank}.pt", weights_only=True) for rank in range(2))
        assert len(first) == STEPS + 1
        assert all(same(a, b) for a, b in zip(first, second, strict=True))
        found[exchange] = first
    exact, rounded = found["same"][0], found["bfloat16"][0]
    assert exact.keys() == rounded.keys()
    for name, gradient in exact.items():
        # Each of two is rounded, and so is their sum: three times at most half of 2^-7, of the largest that is summed.
        torch.testing.assert_close(
            rounded[name], gradient, rtol=0.02, atol=0.02 * float(gradient.abs().max()), msg=name
        )
    norm = torch.cat([(rounded[name] - exact[name]).flatten() for name in exact]).norm()
    assert 1e-4 < float(norm / torch.cat([x.flatten() for x in exact.values()]).norm()) < 1e-2, "nothing is rounded"
