"""Further labels: those of frames that the walk back passes before it ends at the clip's own. Each is compared too.

    loss_b = mean over the labelled frames of walk b after its first one of criterion(backward at that frame, its label)

A mean, not a sum: every clip weighs the same, however many labels its walk passes, and a learning rate that suits one
label suits any budget; static steps are brought to the loss of a frame likewise (`data.static_share`). The way there
passes these frames as well, but has no gradient: a loss on it would teach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ovos_ray.data.clips.batches import NO_LABEL
from ovos_ray.methods.batch import ClipBatch
from ovos_ray.networks.graphs import send

__all__ = ["Compare", "with_further_labels"]

Parts = dict[str, Tensor]
Compare = Callable[[int, Tensor, Sequence[np.random.Generator], Tensor], Parts]
"""From the place of a frame among those that were segmented, its label (B, H, W), generators, and which of its pixels
are unknown, (B, H, W), to parts (B,)."""


def with_further_labels(
    parts: Parts, compare: Compare, clip: ClipBatch, visited: Sequence[Sequence[int]]
) -> tuple[Parts, Tensor]:
    """Averages the loss at the clip's own label with those at the further ones that its walk back passes.

    What is drawn for a frame depends on its sample alone, not on which of the batch have a label there.

    Args:
        parts: The loss at the clip's own label.
        compare: Gives the same at another frame.
        clip: The batch.
        visited: (B, K) frames of the clip in the order of each sample's walk.

    Returns:
        The means, and how many further labels each sample has, (B,).
    """
    if clip.labels is None or clip.labelled is None:
        return parts, torch.zeros_like(clip.weight)
    device, passed = clip.labels.device, np.array(visited)[:, 1:-1]
    known = np.take_along_axis(clip.labelled, passed, 1)
    labels = clip.labels[torch.arange(len(passed), device=device)[:, None], send(torch.from_numpy(passed), device)]
    is_known, number = (send(torch.from_numpy(values), device) for values in (known, known.sum(1)))
    generators = [rng.spawn(known.shape[1]) for rng in clip.draws.per_sample]
    for place in np.flatnonzero(known.any(0)).tolist():
        unknown = labels[:, place] == NO_LABEL  # other objects than the clip's own label shows, or no label here
        label = labels[:, place].masked_fill(unknown, 0)
        own = compare(place, label, [rngs[place] for rngs in generators], unknown)
        parts = {name: part + torch.where(is_known[:, place], own[name], 0) for name, part in parts.items()}
    return {name: part / (1 + number) for name, part in parts.items()}, number
