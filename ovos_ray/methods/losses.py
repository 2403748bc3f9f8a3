"""The model-specific losses (equation 2 of the paper), all per sample.

A loss is a vector (B,) until `weighted_mean` reduces it. So it does not matter how a batch is split over workers, and
a slot without a sample counts as exactly zero. Shapes: B samples, N object channels (padded to the same number for the
whole batch), C = 1 + N with the background first, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovos_ray.config import LossConfig
from ovos_ray.methods.schedules import top_fraction_at
from ovos_ray.networks.base import AuxiliaryLogits
from ovos_ray.networks.blocks import EMPTY_LOGIT
from ovos_ray.networks.graphs import send
from ovos_ray.networks.precision import full_precision

__all__ = [
    "cross_entropy",
    "dice",
    "frame_losses",
    "give_objects",
    "give_unknown",
    "mask_confidence",
    "mask_iou",
    "one_hot",
    "point_losses",
    "sample_points",
    "total_loss",
    "uses_auxiliary",
    "weighted_mean",
]

_CERTAIN = -2 * EMPTY_LOGIT  # twice as sure as a network can be, so that nothing it says comes near


def frame_losses(
    logits: Tensor,
    label: Tensor,
    num_objects: Tensor,
    config: LossConfig,
    *,
    step: int = 0,
    auxiliary: AuxiliaryLogits | None = None,
    generators: Sequence[np.random.Generator] = (),
) -> dict[str, Tensor]:
    """Compares the logits of one frame with its label.

    Args:
        logits: (B, C, H, W), background first.
        label: (B, H, W) object indices.
        num_objects: (B,) real objects of each sample; 0 counts as 1, as in the published code.
        config: Which loss.
        step: Optimiser step, for the warm-up of the bootstrapped cross-entropy.
        auxiliary: Logits (L, B, C, h, w) of L auxiliary heads of each kind, at any resolution (Cutie).
        generators: One per sample, for the random points (Cutie).

    Returns:
        Named parts, each (B,); the loss of the frame is their sum.
    """
    logits = full_precision(logits)
    if config.cross_entropy == "points":
        target = one_hot(label, logits.shape[1]).to(logits.dtype)
        parts = point_losses(logits, target, num_objects, config, generators)
        heads = [
            part
            for kind in (auxiliary or {}).values()
            for head in kind
            for part in point_losses(full_precision(head), target, num_objects, config, generators).values()
        ]
        if heads:
            parts["auxiliary"] = config.auxiliary_weight * torch.stack(heads).sum(0)
        return parts
    fraction = top_fraction_at(step, config) if config.cross_entropy == "bootstrapped" else 1.0
    parts = {"cross_entropy": cross_entropy(logits, label, num_objects, fraction)}
    if config.dice:
        parts["dice"] = dice(logits, label)
    return parts


def uses_auxiliary(config: LossConfig) -> bool:
    """Whether the loss looks at auxiliary heads, where a network has them (Cutie)."""
    return config.cross_entropy == "points" and config.auxiliary_weight > 0


def give_objects(logits: Tensor, label: Tensor, given: Tensor) -> Tensor:
    """Takes some objects out of the loss: returns logits that say of them what the label says.

    Their pixels, and their channels everywhere, count as right and carry no gradient. Cutie's points lie between
    pixels: those on the edge of such an object still see its neighbours.

    Args:
        logits: (B, C, h, w), or (L, B, C, h, w) of auxiliary heads; of any resolution, to which the label is brought.
        label: (B, H, W) object indices.
        given: (B, C-1), which objects.
    """
    if label.shape[-2:] != logits.shape[-2:]:
        label = F.interpolate(label[:, None].float(), logits.shape[-2:], mode="nearest")[:, 0].to(label.dtype)
    wanted = one_hot(label, logits.shape[-3])
    channels = torch.cat([torch.zeros_like(given[:, :1]), given], 1)[..., None, None]
    pixels = (wanted & channels).any(1, keepdim=True)
    return torch.where(channels | pixels, torch.where(wanted, _CERTAIN, -_CERTAIN), logits)


def give_unknown(logits: Tensor, unknown: Tensor) -> Tensor:
    """Takes some pixels out of the loss: returns logits that are sure of the background there.

    Args:
        logits: As for `give_objects`.
        unknown: (B, H, W), which pixels; their label is to be 0.
    """
    if unknown.shape[-2:] != logits.shape[-2:]:
        unknown = F.interpolate(unknown[:, None].float(), logits.shape[-2:], mode="nearest")[:, 0] > 0
    background = logits.new_full((logits.shape[-3], 1, 1), -_CERTAIN)
    background[0] = _CERTAIN
    return torch.where(unknown[:, None], background, logits)


def total_loss(parts: Mapping[str, Tensor], weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Reduces the parts of a loss, each (B,), to what is minimised and what is logged."""
    means = {name: weighted_mean(part, weight) for name, part in parts.items()}
    loss = torch.stack(list(means.values())).sum()
    return loss, {name: mean.detach() for name, mean in {"loss": loss, **means}.items()}


def cross_entropy(logits: Tensor, label: Tensor, num_objects: Tensor, fraction: float = 1.0) -> Tensor:
    """Bootstrapped cross-entropy of STCN and XMem, (B,): the mean over the hardest `fraction` of each frame's pixels.

    Only the background and the real objects take part in the softmax: STCN uses 2 of its 3 channels where a sample
    has one object.
    """
    per_pixel = F.cross_entropy(_without_padding(logits, num_objects), label.long(), reduction="none").flatten(1)
    if fraction < 1:
        per_pixel = per_pixel.topk(max(1, int(per_pixel.shape[1] * fraction)), dim=1).values
    return per_pixel.mean(1)


def dice(logits: Tensor, label: Tensor) -> Tensor:
    """Dice loss of XMem, (B,): 1 - (2 Σpm + 1) / (Σp + Σm + 1) on soft probabilities, mean over all N objects.

    Padded objects take part as published: they have an empty target, nearly no probability, and divide the mean.
    """
    probability = logits.softmax(1)[:, 1:].flatten(2)
    target = one_hot(label, logits.shape[1])[:, 1:].flatten(2).to(logits.dtype)
    return _dice(probability, target).mean(1)


def point_losses(
    logits: Tensor,
    target: Tensor,
    num_objects: Tensor,
    config: LossConfig,
    generators: Sequence[np.random.Generator],
) -> dict[str, Tensor]:
    """Cutie's cross-entropy and dice at random points, most of them where the logits are uncertain.

    Args:
        logits: (B, C, h, w), of any resolution.
        target: (B, C, H, W) one-hot; sampled bilinearly, so that the targets at the points are soft.
        num_objects: (B,) real objects; padded ones take no part.
        config: Number and kind of points.
        generators: One per sample; each is advanced by the same number of draws.
    """
    points = sample_points(logits.detach(), num_objects, config, generators)
    at_points = _without_padding(_sample(logits, points), num_objects)
    wanted = _sample(target, points)
    real = _real_channels(num_objects, logits.shape[1])[..., None]
    parts = {"cross_entropy": -(wanted * at_points.log_softmax(1).masked_fill(~real, 0)).sum(1).mean(1)}
    if config.dice:
        per_object = _dice(at_points.softmax(1)[:, 1:], wanted[:, 1:]) * real[:, 1:, 0]
        parts["dice"] = per_object.sum(1) / num_objects.clamp(min=1)
    return parts


def sample_points(
    logits: Tensor, num_objects: Tensor, config: LossConfig, generators: Sequence[np.random.Generator]
) -> Tensor:
    """Returns points (B, P, 2) in [0, 1]², (x, y): the most uncertain of many, and some uniform ones (Cutie).

    With one object the uncertainty is -|foreground logit|, otherwise the second largest logit minus the largest.
    """
    num_drawn = int(config.oversampling * config.num_points)
    num_uncertain = int(config.importance * config.num_points)
    drawn = np.stack(
        [rng.random((num_drawn + config.num_points - num_uncertain, 2), dtype=np.float32) for rng in generators]
    )
    points = send(torch.from_numpy(drawn), logits.device).to(logits.dtype)
    candidates, uniform = points[:, :num_drawn], points[:, num_drawn:]
    values = _without_padding(_sample(logits, candidates), num_objects)
    first, second = values.topk(2, dim=1).values.unbind(1)
    uncertainty = torch.where((num_objects <= 1)[:, None], -values[:, 1].abs(), second - first)
    chosen = uncertainty.topk(num_uncertain, dim=1).indices
    return torch.cat([candidates.gather(1, chosen[..., None].expand(-1, -1, 2)), uniform], 1)


def weighted_mean(per_sample: Tensor, weight: Tensor) -> Tensor:
    """Returns sum_b weight_b · loss_b / B, with B counting slots of zero weight too.

    A slot of zero weight contributes exactly zero even if its value is not finite.
    """
    weight = weight.to(per_sample.dtype)
    return (torch.where(weight > 0, per_sample, torch.zeros_like(per_sample)) * weight).sum() / len(per_sample)


@torch.no_grad()
def mask_iou(logits: Tensor, label: Tensor, num_objects: Tensor) -> Tensor:
    """Returns the intersection over union of the arg-max mask, (B,), mean over real objects; 1 if both are empty."""
    num_channels = logits.shape[1]
    # max, because arg-max over a strided dimension is 30 times as slow on CPUs.
    found = one_hot(_without_padding(logits, num_objects).max(1).indices, num_channels)[:, 1:].flatten(2)
    wanted = one_hot(label, num_channels)[:, 1:].flatten(2)
    union = (found | wanted).sum(2)
    iou = torch.where(union > 0, (found & wanted).sum(2) / union.clamp(min=1), 1.0)
    real = _real_channels(num_objects, num_channels)[:, 1:]
    return (iou * real).sum(1) / real.sum(1)


@torch.no_grad()
def mask_confidence(masks: Tensor) -> Tensor:
    """Returns how sure masks (B, N, H, W) of probabilities are, (B,), without a label.

    That is the mean probability of an object over the pixels that are foreground, each with that of its likeliest
    object; 0 where none is.
    """
    largest = masks.max(1).values
    found = masks.sum(1) > 0.5
    return (largest * found).sum((1, 2)) / found.sum((1, 2)).clamp(min=1)


def one_hot(label: Tensor, num_channels: int) -> Tensor:
    """Returns boolean masks (B, C, H, W) of the indices 0 … C-1 in a label (B, H, W)."""
    indices = torch.arange(num_channels, device=label.device, dtype=label.dtype)
    return label[:, None] == indices.view(1, -1, 1, 1)


def _real_channels(num_objects: Tensor, num_channels: int) -> Tensor:
    """(B, C): the background and the real objects."""
    return torch.arange(num_channels, device=num_objects.device) <= num_objects.clamp(min=1)[:, None]


def _without_padding(logits: Tensor, num_objects: Tensor) -> Tensor:
    """Takes padded channels out of every softmax, as slicing them off would; their gradient is exactly zero."""
    real = _real_channels(num_objects, logits.shape[1])
    return logits.masked_fill(~real.view(*real.shape, *(1,) * (logits.dim() - 2)), -torch.inf)


def _dice(probability: Tensor, target: Tensor) -> Tensor:
    intersection, total = (probability * target).sum(-1), probability.sum(-1) + target.sum(-1)
    return 1 - (2 * intersection + 1) / (total + 1)


def _sample(values: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (B, C, P) of (B, C, H, W) at points (B, P, 2) in [0, 1]²; zero outside."""
    grid = (2 * points - 1)[:, :, None]
    return F.grid_sample(values, grid, align_corners=False, padding_mode="zeros").squeeze(3)
