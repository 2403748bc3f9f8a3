"""The published optimisers: Adam with L2 (STCN), AdamW (XMem), AdamW with three groups of parameters (Cutie)."""

from __future__ import annotations

import torch
from torch import nn

from ovos_ray.config import OptimizerConfig

__all__ = ["build_optimizer", "set_learning_rate"]

_BACKBONES = ("key_encoder.", "pixel_encoder.")
# The suffixes also take in `summary_to_query_init.weight` and `summary_to_query_emb.weight`, as in published training.
_EMBEDDINGS = ("query_init.weight", "query_emb.weight")


def build_optimizer(network: nn.Module, config: OptimizerConfig, device: torch.device) -> torch.optim.Optimizer:
    """Builds the optimiser of a network.

    Args:
        network: Its parameter names decide the groups: the image encoder has its own learning rate, query embeddings
            may have no weight decay. Biases and norms are decayed, as published. Frozen parameters are left out.
        config: Which optimiser.
        device: Where the parameters are; decides which fused implementation there is.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            multiplier = config.backbone_multiplier if name.startswith(_BACKBONES) else 1.0
            plain = not config.decay_embeddings and name.endswith(_EMBEDDINGS)
            groups.setdefault((multiplier, 0.0 if plain else config.weight_decay), []).append(parameter)
    kind: type[torch.optim.Optimizer] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    optimizer = kind(  # type: ignore[call-arg]  # both take these arguments, their base class does not
        [{"params": p, "multiplier": m, "weight_decay": decay} for (m, decay), p in groups.items()],
        lr=config.learning_rate,
        eps=config.epsilon,
        fused=device.type in ("cpu", "cuda"),
    )
    set_learning_rate(optimizer, config.learning_rate)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate, times each group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["multiplier"]
