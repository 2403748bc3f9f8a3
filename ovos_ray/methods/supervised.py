"""The fully supervised counterpart (Figure 2, left): one propagation with gradient, a loss on every later frame.

    logits = propagate(label_0, order 0, 1, …, T)        with gradient
    loss   = Σ_t criterion(logits_t, label_t)

On clips synthesised from single images the same is the static-image pretraining of stage 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ovos_ray.config import MethodConfig
from ovos_ray.errors import ConfigError
from ovos_ray.methods.batch import ClipBatch
from ovos_ray.methods.losses import frame_losses, mask_iou, total_loss, uses_auxiliary
from ovos_ray.methods.numerics import Numerics
from ovos_ray.methods.propagation import propagate
from ovos_ray.networks.base import AuxiliaryLogits, VOSNetwork
from ovos_ray.seeding import BatchRng

__all__ = ["supervised_loss"]


def supervised_loss(
    network: VOSNetwork,
    batch: Mapping[str, Tensor],
    config: MethodConfig,
    rng: np.random.Generator | BatchRng | None = None,
    *,
    step: int = 0,
    max_objects: int | None = None,
    numerics: Numerics | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Propagates the first label forward and compares every later frame with its own.

    Args:
        network: Any VOS network.
        batch: As `ClipBatch.of` describes it, and `labels` (B, T, H, W) uint8 of all frames, whose first is `label`.
        config: The loss; backward strategy and reference do not matter here.
        rng: As in `one_shot_loss`, and so are the other arguments and the result.
        step: Optimiser step.
        max_objects: N.
        numerics: Precision and memory.

    Raises:
        ConfigError: The clips have one frame, or labels of the first frame only.
    """
    numerics = numerics or Numerics()
    clip = ClipBatch.of(batch, network, max_objects, rng)
    labels = batch.get("labels")
    if clip.num_frames < 2 or labels is None or labels.shape[1] != clip.num_frames:
        found = "no labels" if labels is None else f"{labels.shape[1]} labels"
        raise ConfigError(
            f"the supervised method needs a label for each frame of at least 2; clips have {clip.num_frames} frames "
            f"and {found}",
            "pack with --labels all, or train with method.name=one_shot",
        )
    heads: list[AuxiliaryLogits] | None = [] if uses_auxiliary(config.loss) else None
    with numerics.for_gradient(clip.frames.device):
        forward = propagate(
            network,
            clip.frames,
            clip.masks,
            range(clip.num_frames),
            selector=clip.selector,
            num_kept=clip.num_kept,
            rng=clip.draws,
            aux=heads,
            recompute=numerics.recompute,
        )
    per_frame = [
        frame_losses(
            logits,
            labels[:, t],
            clip.num_objects,
            config.loss,
            step=step,
            auxiliary=heads[t - 1] if heads else None,
            generators=clip.draws.per_sample,
        )
        for t, logits in enumerate(forward, start=1)
    ]
    parts = {name: torch.stack([losses[name] for losses in per_frame]).sum(0) for name in per_frame[0]}
    loss, scalars = total_loss(parts, clip.weight)
    ious = [mask_iou(logits, labels[:, t], clip.num_objects) for t, logits in enumerate(forward, start=1)]
    return loss, scalars | {"iou": clip.mean(torch.stack(ious).mean(0))}
