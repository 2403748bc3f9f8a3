"""One-shot training: from the one labelled frame to the last, and back to the label (section 3 of the paper).

    forward  = propagate(label_0, order 0, 1, …, T)      without gradient
    backward = propagate(mask_T,  order T, …, 0)         with gradient, fresh memory
    loss     = criterion(backward at frame 0, label_0)

The label is where the forward propagation starts and what the loss compares with; the backward propagation sees it
only through the predicted mask_T. Nothing inside the backward propagation is detached. Where more frames have labels,
those that it passes may be compared too (`further_labels.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ovos_ray.config import MethodConfig
from ovos_ray.config.strategies import canonical_strategy, check_strategy
from ovos_ray.data.clips.batches import NO_LABEL
from ovos_ray.errors import ConfigError
from ovos_ray.methods.batch import ClipBatch
from ovos_ray.methods.further_labels import with_further_labels
from ovos_ray.methods.losses import (
    frame_losses,
    give_objects,
    give_unknown,
    mask_confidence,
    mask_iou,
    one_hot,
    total_loss,
    uses_auxiliary,
)
from ovos_ray.methods.numerics import Numerics
from ovos_ray.methods.propagation import Walk, encode_frames, pad_objects, propagate, walk_along
from ovos_ray.networks.base import AuxiliaryLogits, FrameFeatures, VOSNetwork
from ovos_ray.networks.graphs import Graphs, send
from ovos_ray.networks.precision import full_precision
from ovos_ray.seeding import BatchRng

__all__ = ["backward_order", "backward_walk", "given_reference", "label_of_last", "one_shot_loss", "reference_of"]


def one_shot_loss(
    network: VOSNetwork,
    batch: Mapping[str, Tensor],
    config: MethodConfig,
    rng: np.random.Generator | BatchRng | None = None,
    *,
    step: int = 0,
    max_objects: int | None = None,
    numerics: Numerics | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Walks forward without gradient, back with gradient, and compares with the one label.

    Args:
        network: Any VOS network.
        batch: As `ClipBatch.of` describes it; frame 0 is the labelled one.
        config: Strategy, reference and loss.
        rng: A generator in the same state on all ranks; None: a fixed one.
        step: Optimiser step, for losses that warm up.
        max_objects: N, to which clips are padded; None: the largest number of objects in the batch.
        numerics: Precision and memory; None: those of the weights.

    Returns:
        The loss, sum_b weight_b · loss_b / B, and scalars to log, without gradient.

    Raises:
        ConfigError: The backward strategy does not fit the clip or the network.
    """
    numerics = _with_graphs_that_fit(numerics or Numerics(), config)
    clip = ClipBatch.of(batch, network, max_objects, rng)
    check_strategy(type(network).__name__, network.recurrent, config, clip.num_frames)
    walked, order, visited = backward_walk(clip, config)
    if config.reference == "empty":
        clip = clip.with_one_object(config.empty_objects)
    back_features, forward_features = None, None
    if config.share_features:
        back_features, forward_features = _encode_once(network, clip, walked, order, numerics)

    described: dict[str, Tensor] = {}
    reference = given_reference(clip, config)
    if reference is None:
        reference = _walk_forward(network, clip, forward_features, config, numerics)
        described = _describe_reference(reference, clip)
    heads: list[AuxiliaryLogits] | None = [] if uses_auxiliary(config.loss) else None
    with numerics.for_gradient(clip.frames.device):
        backward = propagate(
            network,
            walked,
            reference,
            order,
            features=back_features,
            selector=clip.selector,
            num_kept=clip.num_kept,
            rng=clip.draws,
            aux=heads,
            recompute=numerics.recompute,
        )
    gone: Tensor | None = None
    if config.vanished == "leave_out" and config.reference != "empty":
        gone = _gone(reference) & clip.selector
        described["vanished_objects"] = clip.mean(gone.sum(1) / clip.num_objects.clamp(min=1))

    def compare(
        place: int, label: Tensor, generators: Sequence[np.random.Generator], unknown: Tensor | None = None
    ) -> dict[str, Tensor]:
        logits, auxiliary = backward[place], heads[place] if heads else {}
        if gone is not None:
            logits = give_objects(logits, label, gone)
            auxiliary = {name: give_objects(head, label, gone) for name, head in auxiliary.items()}
        if unknown is not None:
            logits = give_unknown(logits, unknown)
            auxiliary = {name: give_unknown(head, unknown) for name, head in auxiliary.items()}
        return frame_losses(
            logits, label, clip.num_objects, config.loss, step=step, auxiliary=auxiliary, generators=generators
        )

    parts = compare(-1, clip.label, clip.draws.per_sample)
    if config.further_labels == "compare":
        parts, number = with_further_labels(parts, compare, clip, visited)
        described["further_labels"] = clip.mean(number)
    loss, scalars = total_loss(parts, clip.weight)
    return loss, scalars | _describe(backward[-1], reference, clip) | described


def _with_graphs_that_fit(numerics: Numerics, config: MethodConfig) -> Numerics:
    """Returns numerics without graphs where a graph would not compute what eager code does.

    A graph encodes all frames by itself, in the precision of the roll-out. Where features of another precision, those
    with gradient, are to be shared, they would have to be copied into it, which costs more than it saves.
    """
    if numerics.graphs is None or not config.share_features or numerics.rollout == numerics.autocast:
        return numerics
    numerics.graphs.refuse("the roll-out shares features with the way back, whose precision is another")
    return replace(numerics, graphs=None)


def given_reference(clip: ClipBatch, config: MethodConfig) -> Tensor | None:
    """Returns the masks (B, N, H, W) that the walk back starts from, where they are empty or the true ones.

    None: the walk forward predicts them.

    Raises:
        ConfigError: The true ones are asked for, and the last frame of a clip has no label.
    """
    if config.reference == "predicted":
        return None
    if config.reference == "empty":
        return torch.zeros_like(clip.masks)
    label = label_of_last(clip)
    if label is None:
        raise ConfigError(
            "method.reference='true' starts from the label of the last frame, which these clips do not have",
            "pack with --labels all, or train with method.reference=predicted",
        )
    return one_hot(label, 1 + clip.max_objects)[:, 1:].to(clip.frames.dtype)


def _walk_forward(
    network: VOSNetwork,
    clip: ClipBatch,
    features: Mapping[int, FrameFeatures] | None,
    config: MethodConfig,
    numerics: Numerics,
) -> Tensor:
    """Infers the masks (B, N, H, W) of the last frame from the label of the first (section 3.3), without gradient."""
    read_all = config.rollout_memory == "all"
    with torch.no_grad():
        if numerics.graphs is None:
            logits = _roll_out(network, clip, features, numerics, read_all)
        else:
            logits = _roll_out_as_graph(network, clip, numerics, numerics.graphs, read_all)
        return reference_of(logits, config)


def reference_of(logits: Tensor, config: MethodConfig) -> Tensor:
    """Returns the predicted masks (B, N, H, W) that the walk back starts from: the logits (B, 1+N, H, W) as masks."""
    if config.reference_mask == "hard":
        return one_hot(logits.max(1).indices, logits.shape[1])[:, 1:].to(logits.dtype)
    return logits.softmax(1)[:, 1:]


def _roll_out(
    network: VOSNetwork,
    clip: ClipBatch,
    features: Mapping[int, FrameFeatures] | None,
    numerics: Numerics,
    read_all: bool,
) -> Tensor:
    """Returns the logits (B, 1+N, H, W) of the last frame."""
    if features is not None:
        features = {t: feature.detach() for t, feature in features.items()}
    with numerics.for_rollout(clip.frames.device):
        return propagate(
            network,
            clip.frames,
            clip.masks,
            range(clip.num_frames),
            features=features,
            selector=clip.selector,
            num_kept=clip.num_kept,
            rng=clip.draws,
            read_all=read_all,
        )[-1]


def _roll_out_as_graph(
    network: VOSNetwork, clip: ClipBatch, numerics: Numerics, graphs: Graphs, read_all: bool
) -> Tensor:
    """Returns the same from one graph, which encodes all frames by itself; see `networks.graphs`."""
    kept, device = clip.num_kept, clip.frames.device
    masks = clip.masks[:, :kept].to(torch.promote_types(clip.frames.dtype, torch.float32))
    walk = Walk.drawn(network, range(clip.num_frames), clip.draws, device, read_all=read_all)
    inputs = [clip.frames, masks, full_precision(clip.selector[:, :kept]), send(torch.tensor(walk.deep), device)]
    inputs += [] if walk.references is None else [walk.references]
    key = (id(network), next(network.parameters()).data_ptr(), numerics.rollout)
    (logits,) = graphs(key, partial(_rolled_out, network, numerics), *inputs)
    return pad_objects(logits.clone(), 1, clip.max_objects - kept)


def _rolled_out(
    network: VOSNetwork,
    numerics: Numerics,
    frames: Tensor,
    masks: Tensor,
    selector: Tensor,
    deep: Tensor,
    references: Tensor | None = None,
) -> tuple[Tensor]:
    order = range(frames.shape[1])
    with torch.no_grad(), numerics.for_rollout(frames.device):
        features = encode_frames(network, frames, order)
        walk = Walk(order, deep, references)
        return (walk_along(network, walk, features, masks, selector)[-1],)


def backward_walk(clip: ClipBatch, config: MethodConfig) -> tuple[Tensor, list[int], list[list[int]]]:
    """Returns frames (B, T, 3, H, W), the order in which they are walked back, and what each walk visits of its clip.

    Where every sample has frames of its own between the last and the first, they are gathered in the order of the walk.
    """
    order = backward_order(config.backward, clip.num_frames, clip.draws.shared)
    nothing_drawn = len(order) in (2, clip.num_frames)
    if config.shared_intermediate or nothing_drawn:
        return clip.frames, order, [order] * len(clip.counts)
    own = [backward_order(config.backward, clip.num_frames, rng) for rng in clip.draws.per_sample]
    samples = torch.arange(len(own), device=clip.frames.device)[:, None]
    return clip.frames[samples, send(torch.tensor(own), clip.frames.device)], list(range(len(order))), own


def _encode_once(
    network: VOSNetwork, clip: ClipBatch, walked: Tensor, order: Sequence[int], numerics: Numerics
) -> tuple[dict[int, FrameFeatures], dict[int, FrameFeatures]]:
    """Encodes every frame once: those of the backward order with gradient, the others without.

    A roll-out that is a graph encodes all frames again, in one batch: that costs less than copying features into it.
    So are, without a graph, the frames between where every sample has its own.

    Returns:
        Features for the way back, by index into `walked`, and for the way there, by index into the clip.
    """
    device, last = clip.frames.device, clip.num_frames - 1
    with numerics.for_gradient(device):
        back = encode_frames(network, walked, order)
    there = dict(back) if walked is clip.frames else {last: back[order[0]], 0: back[order[-1]]}
    others = [t for t in range(clip.num_frames) if t not in there]
    if others and numerics.graphs is None:
        with torch.no_grad(), numerics.for_rollout(device):
            there |= encode_frames(network, clip.frames, others)
    return back, there


def _gone(reference: Tensor) -> Tensor:
    """Returns which objects are the likeliest at no pixel of masks (B, N, H, W), (B, N)."""
    likeliest = torch.cat([1 - reference.sum(1, keepdim=True), reference], 1).max(1).indices
    return ~one_hot(likeliest, 1 + reference.shape[1])[:, 1:].flatten(2).any(2)


def label_of_last(clip: ClipBatch) -> Tensor | None:
    """Returns the label of frame T, if all samples have one; what it shows of other objects is background."""
    if clip.labels is None or clip.labelled is None or not clip.labelled[:, -1].all():
        return None
    return clip.labels[:, -1].masked_fill(clip.labels[:, -1] == NO_LABEL, 0)


@torch.no_grad()
def _describe_reference(reference: Tensor, clip: ClipBatch) -> dict[str, Tensor]:
    """What the forward mask says: how sure it is and, where frame T has a label, how right.

    `reference_iou` compares it with that label. `reference_identity` is the share of the labelled foreground, as far as
    the mask calls it foreground too, that has the right object; 0 where there is none.
    """
    described = {"reference_confidence": clip.mean(mask_confidence(reference))}
    wanted = label_of_last(clip)
    if wanted is None:
        return described
    probabilities = torch.cat([1 - reference.sum(1, keepdim=True), reference], 1)
    found = probabilities.max(1).indices
    both = (found > 0) & (wanted > 0)
    right = (both & (found == wanted)).sum((1, 2)) / both.sum((1, 2)).clamp(min=1)
    return described | {
        "reference_iou": clip.mean(mask_iou(probabilities, wanted, clip.num_objects)),
        "reference_identity": clip.mean(right),
    }


@torch.no_grad()
def _describe(logits: Tensor, reference: Tensor, clip: ClipBatch) -> dict[str, Tensor]:
    """Scalars that show how training goes, left on the device.

    `iou` compares the reconstructed first mask with the label. `reference_foreground` is the share of the pixels of
    frame T that the reference calls foreground, and `reference_copy` its overlap with the label of frame 0: near 1 it
    says that the network copies the first mask (Figure 7 of the paper).
    """
    found, label = reference.sum(1) > 0.5, clip.label > 0
    union = (found | label).sum((1, 2)).clamp(min=1)
    return {
        "iou": clip.mean(mask_iou(logits, clip.label, clip.num_objects)),
        "reference_foreground": clip.mean(found.float().mean((1, 2))),
        "reference_copy": clip.mean((found & label).sum((1, 2)) / union),
    }


def backward_order(strategy: str, clip_length: int, rng: np.random.Generator) -> list[int]:
    """Returns the frames of the backward propagation, T first and 0 last (section 3.4).

    Args:
        strategy: `T-step` visits all frames; `k-step` T, k-1 distinct ones drawn uniformly between, and 0.
        clip_length: n = T + 1.
        rng: Shared by all ranks, so that all walk the same frames; unused where nothing is drawn.

    Raises:
        ConfigError: See `canonical_strategy`.
    """
    last = clip_length - 1
    strategy = canonical_strategy(strategy, clip_length)
    if strategy == "T-step":
        return list(range(last, -1, -1))
    num_between = int(strategy.removesuffix("-step")) - 1
    between = (1 + rng.choice(last - 1, num_between, replace=False)).tolist() if num_between else []
    return [last, *sorted(between, reverse=True), 0]
