"""The published optimisers: Adam with L2 (STCN), AdamW (XMem), AdamW with three groups of parameters (Cutie)."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ovos_ray.config import OptimizerConfig
from ovos_ray.networks.base import VOSNetwork

__all__ = ["build_optimizer", "load_moments", "set_learning_rate", "update"]


def build_optimizer(network: VOSNetwork, config: OptimizerConfig, device: torch.device) -> torch.optim.Optimizer:
    """Builds the optimiser of a network.

    Args:
        network: It says by name which parameters are the image encoder, with a learning rate of its own, and which
            are embeddings, which may have no weight decay. Biases and norms are decayed, as published. Frozen
            parameters are left out.
        config: Which optimiser.
        device: Where the parameters are; decides which fused implementation there is.
    """
    # Names decide the groups, not what the learning rate or the decay happens to be, so that moments fit others too.
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            multiplier = config.backbone_multiplier if name.startswith(network.backbone_prefixes) else 1.0
            plain = not config.decay_embeddings and name.endswith(network.embedding_suffixes)
            groups.setdefault((multiplier, plain), []).append(parameter)
    kind = _without_compiler({"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name])
    optimizer = kind(  # type: ignore[call-arg]  # both take these arguments, their base class does not
        [
            {"params": p, "multiplier": multiplier, "weight_decay": 0.0 if plain else config.weight_decay}
            for (multiplier, plain), p in groups.items()
        ],
        lr=config.learning_rate,
        eps=config.epsilon,
        fused=device.type in ("cpu", "cuda"),
    )
    set_learning_rate(optimizer, config.learning_rate)
    return optimizer


@functools.cache
def _without_compiler(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Returns a kind of optimiser whose methods are not kept away from torch.compile.

    They are wrapped to be so, and the wrappers import it, which takes 1.5 s and 180 MiB of every process. None of them
    is ever compiled here. What is lost is pickling, which nothing here does: their states are stored.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads moments and step counts; weight decay and the like stay those that the optimiser was built with."""
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate, times each group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["multiplier"]


def update(optimizer: torch.optim.Optimizer, wanted: Tensor) -> None:
    """Makes a step, or leaves weights, moments and counts as they are where it is not wanted.

    Args:
        optimizer: Made by `build_optimizer`.
        wanted: One bool on the device of the weights, which fused optimisers read there.
    """
    if all(group["fused"] for group in optimizer.param_groups):
        optimizer.found_inf = (~wanted).float()  # type: ignore[attr-defined]  # where gradient scalers say so too
        optimizer.step()
    elif wanted:
        optimizer.step()
