"""Cycle strip: the last training clip there and back as a picture, drawn by the run that was trained on it.

Above, what the network carries forward from the label; below, what it reconstructs from the last mask, grey where the
walk back skips a frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ovos_ray.config import ExperimentConfig
from ovos_ray.data.clips.curricula import is_static_step
from ovos_ray.evaluate.infer.overlay import grid, tile
from ovos_ray.methods.batch import ClipBatch
from ovos_ray.methods.one_shot import backward_walk, given_reference, label_of_last, reference_of
from ovos_ray.methods.propagation import propagate
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.seeding import generator
from ovos_ray.train.step import numerics_of

__all__ = ["cycle_strip"]

_TILE_WIDTH = 180


@torch.no_grad()
def cycle_strip(
    network: VOSNetwork, batch: Mapping[str, Tensor], config: ExperimentConfig, step: int
) -> tuple[bytes, str] | None:
    """Propagates the first real clip of a batch once more, with the draws that the step had for it.

    Returns:
        The picture (WebP) and its words; None for other methods than one-shot, and where the batch shows no object.
    """
    method = config.method
    static = is_static_step(config.data.static_share, config.seed, step, config.train.steps)
    real = ((batch["weight"] > 0) & (batch["num_objects"] > 0)).nonzero().flatten().tolist()
    if method.name != "one_shot" or static or not real:
        return None
    one = {name: value[real[0] : real[0] + 1] for name, value in batch.items()}
    clip = ClipBatch.of(one, network, config.data.max_objects, generator(config.seed, step, "step"))
    walked, order, (visited,) = backward_walk(clip, method)
    if method.reference == "empty":
        clip = clip.with_one_object(method.empty_objects)
    frames = one["frames"][0].permute(0, 2, 3, 1).cpu().numpy()
    label = clip.label[0].cpu().numpy()
    there = {0: label}
    reference = given_reference(clip, method)
    with numerics_of(config.train, clip.frames.device, None).for_rollout(clip.frames.device):
        if reference is None:
            numbers, read_all = range(clip.num_frames), method.rollout_memory == "all"
            forward = propagate(
                network, clip.frames, clip.masks, numbers, selector=clip.selector, rng=clip.draws, read_all=read_all
            )
            there |= {t: _ids(logits) for t, logits in zip(numbers[1:], forward, strict=True)}
            reference = reference_of(forward[-1], method)
        elif (truth := label_of_last(clip)) is not None and method.reference == "true":
            there[visited[0]] = truth[0].cpu().numpy()
        backward = propagate(network, walked, reference, order, selector=clip.selector, rng=clip.draws)
    nothing = np.zeros_like(label)
    back = {visited[0]: there.get(visited[0], nothing)}
    back |= {t: _ids(logits) for t, logits in zip(visited[1:], backward, strict=True)}
    rows = [
        [tile(frame, there.get(t, nothing), _TILE_WIDTH) for t, frame in enumerate(frames)],
        [
            tile(frame if t in back else np.full_like(frame, 128), back.get(t, nothing), _TILE_WIDTH)
            for t, frame in enumerate(frames)
        ],
    ]
    union = int(np.count_nonzero((back[0] > 0) | (label > 0)))
    iou = 100 * int(np.count_nonzero((back[0] == label) & (label > 0))) / max(1, union)
    start = {
        "empty": "an empty mask",
        "true": "the label of the last frame",
        "predicted": f"the {method.reference_mask} mask of the last frame",
    }[method.reference]
    return grid(rows, "WEBP"), f"{method.backward} back from {start}; reconstructed label: IoU {iou:.0f} %"


def _ids(logits: Tensor) -> np.ndarray:
    """(1, 1+N, H, W) logits to (H, W) object ids."""
    ids: np.ndarray = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
    return ids
