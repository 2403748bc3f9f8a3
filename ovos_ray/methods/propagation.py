"""Propagating masks along an order of frames: the one idea that every training method here is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ovos_ray.errors import ConfigError
from ovos_ray.networks.base import AuxiliaryLogits, FrameFeatures, MemoryFrame, Padding, Readout, VOSNetwork
from ovos_ray.networks.blocks import EMPTY_LOGIT
from ovos_ray.networks.memory import read
from ovos_ray.networks.precision import full_precision
from ovos_ray.seeding import BatchRng

__all__ = ["encode_frames", "propagate"]


def propagate(
    network: VOSNetwork,
    frames: Tensor,
    masks: Tensor,
    order: Sequence[int],
    *,
    features: Mapping[int, FrameFeatures] | None = None,
    deep_update: Callable[[int], bool] | None = None,
    selector: Tensor | None = None,
    rng: np.random.Generator | BatchRng | None = None,
    aux: list[AuxiliaryLogits] | None = None,
    recompute: bool = False,
) -> list[Tensor]:
    """Propagates masks from the first frame of an order to all others, with fresh memory and zero sensory state.

    Every frame but the last is memorised with its soft predicted masks; nothing is detached on the way.

    Args:
        network: The network.
        frames: (B, T, 3, H, W) float RGB in [0, 1].
        masks: (B, N, H, W) in [0, 1] of any dtype, the masks of frame `order[0]`.
        order: Indices of frames, in the order of propagation.
        features: Features of frames encoded before by `encode_frames`; None: the frames of the order are encoded here.
        deep_update: From a position in the order to whether that frame makes a deep sensory update when it is
            memorised; position 0 always does. None: the network's training-time probability, drawn from `rng`.
        selector: (B, N), nonzero for real objects, 0 for padded ones; None: all are real. Objects that are padded in
            the whole batch are not computed: their logits are a constant.
        rng: Source of deep updates (one draw for the batch) and of reference frames (one draw per sample). A
            generator must be in the same state on all ranks. None: a fixed one.
        aux: A list that receives the auxiliary logits of each frame segmented, where the network has them.
        recompute: Recompute each frame in the backward pass instead of storing its activations.

    Returns:
        For each of `order[1:]`, logits (B, 1+N, H, W) in float32 or the network's float64, background first.

    Raises:
        ConfigError: There are no objects to propagate.
    """
    batch, num_objects = masks.shape[:2]
    if num_objects == 0:
        raise ConfigError("masks of no objects (N = 0) cannot be propagated", "give at least one, all zero if need be")
    order = [int(index) for index in order]
    masks = masks.to(torch.promote_types(frames.dtype, torch.float32))
    draws = BatchRng.of(rng, range(batch))
    if deep_update is None:
        deep_update = partial(_draw_deep_update, network, draws)
    if features is None:
        features = encode_frames(network, frames, order)
    call: Callable[..., Any] = _recomputed if recompute and torch.is_grad_enabled() else _stored

    kept = num_objects if selector is None else _last_real(selector)
    selector = None if selector is None else full_precision(selector[:, :kept])
    padding = Padding.of(frames.shape[-2], frames.shape[-1], network.stride)
    state = network.start(padding.masks(masks[:, :kept]))

    memory: list[MemoryFrame] = []
    outputs: list[Tensor] = []
    heads: list[AuxiliaryLogits] | None = None if aux is None else []
    last = len(order) - 1
    for position, index in enumerate(order):
        if position > 0:
            references = _references(network, len(memory), draws)
            readout = _read(memory, references, features[index])
            logits, state = call(
                network.segment,
                features[index],
                readout,
                state,
                update_sensory=position < last,
                selector=selector,
                aux=heads,
            )
            outputs.append(_pad_objects(padding.crop(logits), 1, num_objects - kept))
        if position < last:
            deep = position == 0 or deep_update(position)
            frame, state = call(network.memorise, features[index], state, deep_update=deep)
            memory.append(frame)
    if aux is not None and heads is not None:
        aux += [{name: _pad_objects(x, 2, num_objects - kept) for name, x in head.items()} for head in heads]
    return outputs


def encode_frames(network: VOSNetwork, frames: Tensor, indices: Sequence[int]) -> dict[int, FrameFeatures]:
    """Encodes some frames of a batch of clips, each once and all in one pass.

    Args:
        network: The network.
        frames: (B, T, 3, H, W) float RGB in [0, 1]; padded here to multiples of the network's stride.
        indices: Frames to encode; repetitions are encoded once.

    Returns:
        From frame index to features of its B images.
    """
    indices = list(dict.fromkeys(indices))
    images = frames[:, indices].transpose(0, 1).flatten(0, 1)
    padding = Padding.of(frames.shape[-2], frames.shape[-1], network.stride)
    features = network.encode(padding.images(images, network.padding_colour))
    return dict(zip(indices, features.split(len(frames)), strict=True))


def _stored(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _recomputed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _draw_deep_update(network: VOSNetwork, draws: BatchRng, position: int) -> bool:
    return network.recurrent and draws.shared.random() < network.deep_update_probability


def _last_real(selector: Tensor) -> int:
    real = selector.ne(0).any(0).nonzero()
    return int(real.max()) + 1 if len(real) else 1


def _pad_objects(logits: Tensor, dim: int, missing: int) -> Tensor:
    if not missing:
        return logits
    return F.pad(logits, (0, 0) * (logits.dim() - 1 - dim) + (0, missing), value=EMPTY_LOGIT)


def _references(network: VOSNetwork, num_memorised: int, draws: BatchRng) -> list[list[int]] | None:
    """Draws which memorised frames each sample reads; None: all of them."""
    limit = network.num_reference_frames
    if limit is None or num_memorised <= limit:
        return None
    if network.keeps_first_reference:
        return [
            [0, *sorted((1 + rng.choice(num_memorised - 1, limit - 1, replace=False)).tolist())]
            for rng in draws.per_sample
        ]
    return [sorted(rng.choice(num_memorised, limit, replace=False).tolist()) for rng in draws.per_sample]


def _read(memory: list[MemoryFrame], references: list[list[int]] | None, query: FrameFeatures) -> Readout:
    def gather(tensors: list[Tensor]) -> Tensor:
        flat = [x.flatten(-2) for x in tensors]
        if references is None:
            return torch.cat(flat, dim=-1)
        return torch.stack([torch.cat([flat[r][b] for r in chosen], -1) for b, chosen in enumerate(references)])

    height, width = query.key.shape[-2:]
    shrinkages = [frame.shrinkage for frame in memory if frame.shrinkage is not None]
    summaries = [frame.summary for frame in memory if frame.summary is not None]
    value = read(
        gather([frame.key for frame in memory]),
        gather(shrinkages) if shrinkages else None,
        gather([frame.value for frame in memory]),
        query.key.flatten(2),
        None if query.selection is None else query.selection.flatten(2),
    )
    return Readout(
        value=value.view(*value.shape[:3], height, width),
        summary=sum(summaries[1:], summaries[0]) if summaries else None,
    )
