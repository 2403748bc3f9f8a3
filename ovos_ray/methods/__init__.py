"""Training methods: one-shot training and its fully supervised counterpart, both made of `propagate`."""

from __future__ import annotations

from ovos_ray.methods.one_shot import backward_order, one_shot_loss
from ovos_ray.methods.propagation import encode_frames, propagate
from ovos_ray.methods.supervised import supervised_loss

__all__ = [
    "LOSSES",
    "backward_order",
    "encode_frames",
    "one_shot_loss",
    "propagate",
    "supervised_loss",
]

LOSSES = {"one_shot": one_shot_loss, "supervised": supervised_loss}
"""The methods by the name `MethodConfig.name` gives them; all are called alike."""
