"""A batch of clips, ready to be propagated. Shapes: B clips, T frames, N objects (padded), H x W pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ovos_ray.data.clips.batches import NO_LABEL
from ovos_ray.methods.losses import one_hot
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.networks.graphs import send
from ovos_ray.seeding import BatchRng

__all__ = ["ClipBatch"]


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """What a method needs of a batch.

    Attributes:
        frames: (B, T, 3, H, W) in [0, 1], in the dtype of the network.
        label: (B, H, W) object indices 0 … N of the labelled frame.
        num_objects: (B,) real objects.
        max_objects: N, the same for all workers: XMem's dice loss is divided by it.
        weight: (B,); 0 for a slot without a sample.
        counts: The same numbers on the host, at least 1 each: reading them waits for no device.
        draws: Random draws.
        labels: (B, T, H, W) of all frames, `NO_LABEL` where nothing is known; None: only `label` is there.
        labelled: (B, T) bool, which frames have one; on the host too.
    """

    frames: Tensor
    label: Tensor
    num_objects: Tensor
    max_objects: int
    weight: Tensor
    counts: tuple[int, ...]
    draws: BatchRng
    labels: Tensor | None = None
    labelled: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        batch: Mapping[str, Tensor],
        network: VOSNetwork,
        max_objects: int | None,
        rng: np.random.Generator | BatchRng | None,
    ) -> ClipBatch:
        """Prepares a batch as it comes from the stream.

        Args:
            batch: `frames` (B, T, 3, H, W) uint8, `label` (B, H, W) uint8, `num_objects`, `weight` and `position` (B,);
                where frames are on a GPU, these three are best left on the CPU, which has to know them. Where there
                are more labels, `labels` (B, T, H, W), and `labelled` (B, T), on the CPU too; without it all have one.
            network: Says the dtype.
            max_objects: N; None: the largest number of objects in the batch.
            rng: A generator in the same state on all ranks, or its draws.
        """
        dtype, device = next(network.parameters()).dtype, batch["frames"].device
        counts = tuple(max(1, count) for count in batch["num_objects"].tolist())
        labels, labelled = batch.get("labels"), None
        if labels is not None and labels.shape[1] != batch["frames"].shape[1]:
            labels = None  # that of the first frame alone, which `label` is
        if labels is not None:
            labelled = np.array(batch["labelled"].tolist() if "labelled" in batch else np.ones(labels.shape[:2]), bool)
        return cls(
            frames=batch["frames"].to(dtype) / 255,
            label=batch["label"],
            num_objects=send(batch["num_objects"], device),
            max_objects=max_objects or max(counts),
            weight=send(batch["weight"], device),
            counts=counts,
            draws=BatchRng.of(rng, batch["position"].tolist()),
            labels=labels,
            labelled=labelled,
        )

    @property
    def num_frames(self) -> int:
        """T."""
        return self.frames.shape[1]

    @property
    def num_kept(self) -> int:
        """The last real object of any sample: those after it are padding in the whole batch."""
        return min(self.max_objects, max(self.counts))

    @property
    def masks(self) -> Tensor:
        """The label as masks (B, N, H, W) of zeros and ones."""
        return one_hot(self.label, 1 + self.max_objects)[:, 1:].to(self.frames.dtype)

    @property
    def selector(self) -> Tensor:
        """(B, N), which objects are real; a clip without any counts as one with an empty object, as published."""
        objects = torch.arange(self.max_objects, device=self.num_objects.device)
        return objects < self.num_objects.clamp(min=1)[:, None]

    def with_one_object(self, choice: str) -> ClipBatch:
        """Returns the clip with one object: `draw` keeps one drawn per sample, `merge` joins all."""
        drawn: Tensor | None = None
        if choice == "draw":
            ids = [int(rng.integers(1, n + 1)) for rng, n in zip(self.draws.per_sample, self.counts, strict=True)]
            drawn = send(torch.tensor(ids, dtype=self.label.dtype), self.label.device)[:, None, None]

        def as_one(label: Tensor, drawn: Tensor | None) -> Tensor:
            return (label > 0 if drawn is None else label == drawn).to(label.dtype)

        labels = self.labels
        if labels is not None:
            one = as_one(labels, None if drawn is None else drawn[:, None])
            labels = torch.where(labels == NO_LABEL, labels, one)
        return dataclasses.replace(
            self,
            label=as_one(self.label, drawn),
            labels=labels,
            num_objects=torch.ones_like(self.num_objects),
            counts=(1,) * len(self.counts),
            max_objects=1,
        )

    def mean(self, per_sample: Tensor) -> Tensor:
        """Returns the weighted mean of a logged quantity (B,) over the real samples."""
        return (per_sample * self.weight).sum() / self.weight.sum().clamp(min=1e-12)
