"""Gradients of one step, of one process and of two, which import this by name."""

from __future__ import annotations

import torch

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-10}
"""With the relative difference that rounding may make."""


def gradients(
    config: ExperimentConfig, batch: dict[str, torch.Tensor], dtype: torch.dtype, *, together: bool
) -> dict[str, torch.Tensor]:
    from ovos_ray.train.step import TrainingModule

    module: torch.nn.Module = TrainingModule(networks.build(config.network.name).to(dtype), config)
    if together:
        module = torch.nn.parallel.DistributedDataParallel(module)
    loss, _ = module(batch, 0)
    loss.backward()
    return {n.removeprefix("module."): p.grad for n, p in module.named_parameters() if p.grad is not None}
