"""Networks: STCN, XMem and Cutie behind one small protocol."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ovos_ray.errors import ConfigError
from ovos_ray.networks import cutie, stcn, xmem
from ovos_ray.networks.base import FrameFeatures, InferenceDefaults, MemoryFrame, Readout, State, VOSNetwork
from ovos_ray.networks.weights import LoadReport, export_weights, has_imagenet, load_imagenet, load_weights

__all__ = [
    "FrameFeatures",
    "InferenceDefaults",
    "LoadReport",
    "MemoryFrame",
    "Readout",
    "State",
    "VOSNetwork",
    "build",
    "export_weights",
    "has_imagenet",
    "load_imagenet",
    "load_weights",
    "names",
    "recognise",
    "structure",
]

# A new network is one file with a class and its named configurations, and one line here.
_FAMILIES: tuple[tuple[type[VOSNetwork], dict[str, Any]], ...] = (
    (stcn.STCN, stcn.CONFIGS),
    (xmem.XMem, xmem.CONFIGS),
    (cutie.Cutie, cutie.CONFIGS),
)


def names() -> list[str]:
    """Returns the names that `build` knows."""
    return [name for _, configs in _FAMILIES for name in configs]


def recognise(state: Collection[str]) -> str | None:
    """Returns the published network whose parameters have these names; None: there is none."""
    return next((name for family, _ in _FAMILIES if (name := family.recognise(state)) is not None), None)


def build(name: str, *, seed: int = 0, **overrides: Any) -> VOSNetwork:
    """Builds a network with random weights.

    Args:
        name: One of `names()`: the published `stcn`, `xmem`, `cutie-base`, `cutie-small`, and `-tiny` ones of the same
            structure for CPUs and tests.
        seed: Seed of the random weights; the global generator is left as it was.
        **overrides: Fields of the family's configuration, such as `hidden_dim=0` for XMem without sensory memory.

    Raises:
        ConfigError: The name or an override is unknown.
    """
    known_names = {known: (family, config) for family, configs in _FAMILIES for known, config in configs.items()}
    if name not in known_names:
        near = difflib.get_close_matches(name, names(), 3, 0.4)
        raise ConfigError(f"unknown network {name!r}", f"choose one of {', '.join(near or names())}")
    family, config = known_names[name]
    known = [item.name for item in dataclasses.fields(config)]
    for key in overrides:
        if key not in known:
            raise ConfigError(f"network {name!r} has no setting {key!r}", f"its settings are {', '.join(known)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family(dataclasses.replace(config, **overrides))


def structure(name: str) -> VOSNetwork:
    """Builds a network whose weights hold nothing in particular, for what its structure alone says; see `build`.

    At once, and without memory, since nothing is written. On the device `meta` PyTorch would import its compiler, for
    1.5 s and 180 MiB, in order to draw no weights there.
    """
    with _WithoutDraws():
        return build(name)


class _WithoutDraws(TorchFunctionMode):
    """Leaves weights as they are."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__ or func in (Tensor.normal_, Tensor.uniform_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
