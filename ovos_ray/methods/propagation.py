"""Propagating masks along an order of frames: the one idea that every training method here is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ovos_ray.errors import ConfigError
from ovos_ray.networks.base import AuxiliaryLogits, FrameFeatures, MemoryFrame, Padding, Readout, State, VOSNetwork
from ovos_ray.networks.blocks import EMPTY_LOGIT
from ovos_ray.networks.graphs import send
from ovos_ray.networks.memory import read
from ovos_ray.networks.precision import full_precision
from ovos_ray.seeding import BatchRng

__all__ = ["Walk", "encode_frames", "pad_objects", "propagate", "walk_along"]


def propagate(
    network: VOSNetwork,
    frames: Tensor,
    masks: Tensor,
    order: Sequence[int],
    *,
    features: Mapping[int, FrameFeatures] | None = None,
    deep_update: Callable[[int], bool] | None = None,
    selector: Tensor | None = None,
    num_kept: int | None = None,
    rng: np.random.Generator | BatchRng | None = None,
    read_all: bool = False,
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
        num_kept: How many objects are computed, where the caller knows which is the last real one; None: found in the
            selector, which waits for the device.
        rng: Source of deep updates (one draw for the batch) and of reference frames (one draw per sample). A
            generator must be in the same state on all ranks. None: a fixed one.
        read_all: Read all memorised frames, as at test time, instead of the network's number of reference frames.
        aux: A list that receives the auxiliary logits of each frame segmented, where the network has them.
        recompute: Recompute each frame in the backward pass instead of storing its activations.

    Returns:
        Logits (B, 1+N, H, W) of every frame after the first one, float32 or the network's float64, background first.

    Raises:
        ConfigError: There are no objects to propagate.
    """
    batch, num_objects = masks.shape[:2]
    if num_objects == 0:
        raise ConfigError("masks of no objects (N = 0) cannot be propagated", "give at least one, all zero if need be")
    order = [int(index) for index in order]
    masks = masks.to(torch.promote_types(frames.dtype, torch.float32))
    walk = Walk.drawn(network, order, BatchRng.of(rng, range(batch)), frames.device, deep_update, read_all=read_all)
    if features is None:
        features = encode_frames(network, frames, order)
    kept = num_kept or (num_objects if selector is None else _last_real(selector))
    selector = None if selector is None else full_precision(selector[:, :kept])
    heads: list[AuxiliaryLogits] | None = None if aux is None else []
    outputs = walk_along(network, walk, features, masks[:, :kept], selector, heads, recompute=recompute)
    if aux is not None and heads is not None:
        aux += [{name: pad_objects(x, 2, num_objects - kept) for name, x in head.items()} for head in heads]
    return [pad_objects(logits, 1, num_objects - kept) for logits in outputs]


@dataclass(frozen=True)
class Walk:
    """An order of frames with all that is drawn for it, so that nothing is left to decide on the way.

    Attributes:
        order: Indices of frames.
        deep: For each frame but the last, whether it makes a deep sensory update when it is memorised; a tensor of
            bool on the device says it to a graph, which computes both.
        references: (len(order), B, R), which memorised frames each sample reads at each position where there are more
            than R; None: all are read at every position.
        unread: For each position, the memorised frames that no sample reads there, as far as the host knows. They take
            no part in the backward pass: neither time nor a zero added to gradients, which would round them otherwise.
    """

    order: Sequence[int]
    deep: Sequence[bool] | Tensor
    references: Tensor | None
    unread: Sequence[Collection[int]] | None = None

    @classmethod
    def drawn(
        cls,
        network: VOSNetwork,
        order: Sequence[int],
        draws: BatchRng,
        device: torch.device,
        deep_update: Callable[[int], bool] | None = None,
        *,
        read_all: bool = False,
    ) -> Walk:
        """Draws a walk; `propagate` describes the arguments."""
        memorised = range(len(order) - 1)
        if deep_update is None:
            deep = [position == 0 or _draw_deep_update(network, draws) for position in memorised]
        else:
            deep = [position == 0 or deep_update(position) for position in memorised]
        chosen = [None if read_all else _references(network, position, draws) for position in range(len(order))]
        none = [[0] * (network.num_reference_frames or 0)] * len(draws.per_sample)
        references = torch.tensor([none if c is None else c for c in chosen]) if any(chosen) else None
        unread = [set(range(at)).difference(*read) if read else set() for at, read in enumerate(chosen)]
        return cls(order, deep, None if references is None else send(references, device), unread)


def walk_along(
    network: VOSNetwork,
    walk: Walk,
    features: Mapping[int, FrameFeatures],
    masks: Tensor,
    selector: Tensor | None,
    aux: list[AuxiliaryLogits] | None = None,
    *,
    recompute: bool = False,
) -> list[Tensor]:
    """Propagates without drawing, deciding or waiting; `propagate` describes what is not said here.

    Args:
        network: The network.
        walk: The order and its draws.
        features: Features of its frames.
        masks: (B, N, H, W) float, of the first frame.
        selector: (B, N) float, or None.
        aux: A list for auxiliary logits.
        recompute: As for `propagate`.
    """
    segment, memorise = network.segment, network.memorise
    if recompute and torch.is_grad_enabled():
        segment, memorise = (
            partial(checkpoint, part, use_reentrant=False, preserve_rng_state=False) for part in (segment, memorise)
        )
    padding = Padding.of(masks.shape[-2], masks.shape[-1], network.stride)
    state = network.start(padding.masks(masks))
    memory: list[MemoryFrame] = []
    outputs: list[Tensor] = []
    last = len(walk.order) - 1
    limit = network.num_reference_frames
    for position, index in enumerate(walk.order):
        if position > 0:
            fewer = walk.references is not None and limit is not None and position > limit
            references = walk.references[position] if fewer else None  # type: ignore[index]
            readout = _read(memory, references, features[index], walk.unread[position] if walk.unread else ())
            logits, state = segment(
                features[index], readout, state, update_sensory=position < last, selector=selector, aux=aux
            )
            outputs.append(padding.crop(logits))
        if position < last:
            frame, state = _memorised(memorise, features[index], state, position == 0 or walk.deep[position])
            memory.append(frame)
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
    # One by one: a list of indices would have to be copied to the device, which waits for it.
    images = torch.stack([frames[:, index] for index in indices]).flatten(0, 1)
    padding = Padding.of(frames.shape[-2], frames.shape[-1], network.stride)
    features = network.encode(padding.images(images, network.padding_colour))
    return dict(zip(indices, features.split(len(frames)), strict=True))


def _memorised(
    memorise: Callable[..., tuple[MemoryFrame, State]], features: FrameFeatures, state: State, deep: bool | Tensor
) -> tuple[MemoryFrame, State]:
    if not isinstance(deep, Tensor):
        return memorise(features, state, deep_update=deep)
    frame, updated = memorise(features, state, deep_update=state.sensory is not None)
    if updated.sensory is not None and state.sensory is not None:
        updated = replace(updated, sensory=torch.where(deep, updated.sensory, state.sensory))
    return frame, updated


def _draw_deep_update(network: VOSNetwork, draws: BatchRng) -> bool:
    return network.recurrent and draws.shared.random() < network.deep_update_probability


def _last_real(selector: Tensor) -> int:
    real = selector.ne(0).any(0).nonzero()
    return int(real.max()) + 1 if len(real) else 1


def pad_objects(logits: Tensor, dim: int, missing: int) -> Tensor:
    """Appends the constant logits of objects that are padded in the whole batch."""
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


def _read(
    memory: list[MemoryFrame], references: Tensor | None, query: FrameFeatures, unread: Collection[int] = ()
) -> Readout:
    """Reads from all frames, or for each sample from those of the references (B, R), which name none of `unread`."""

    def gather(tensors: list[Tensor]) -> Tensor:
        flat = [(x.detach() if at in unread else x).flatten(-2) for at, x in enumerate(tensors)]
        if references is None:
            return torch.cat(flat, dim=-1)
        samples = torch.arange(len(references), device=references.device)
        chosen = torch.stack(flat)[references.T, samples]
        return chosen.movedim(0, -2).flatten(-2)

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
