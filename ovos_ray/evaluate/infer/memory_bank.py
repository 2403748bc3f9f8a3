"""The memory of a network at test time: bounded, with top-k reads and long-term prototypes.

Source: XMem (section 3.3 of its paper), Cutie's FIFO. Objects that appeared together share a bank. Its positions lie
one after another: those of the permanent first frame, then long-term prototypes, then recent frames, oldest first.

Legend: P positions in memory, Q = h·w query positions, N objects, Ck and Cv channels of key and value.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks.base import FrameFeatures, MemoryFrame, Readout
from ovos_ray.networks.memory import augment_memory, augment_query

__all__ = ["MemoryBank"]

# Affinities held at once: 32 Mi floats are 128 MiB.
_MAX_AFFINITIES = 32 * 1024 * 1024
_NEVER_READ = 1e-7


class MemoryBank:
    """The memory of one group of objects."""

    def __init__(self, settings: InferenceSettings, num_objects: int) -> None:
        self.settings = settings
        self.num_objects = num_objects
        self.num_prototypes = 0
        self._frame_size = 0
        self._summary: Tensor | None = None
        self._columns: dict[str, Tensor] = {}
        self._augmented: Tensor | None = None

    @property
    def num_positions(self) -> int:
        """P, all positions together."""
        return len(self._columns["key"]) if self._columns else 0

    @property
    def num_frames(self) -> int:
        """Frames kept as they are, the permanent one included."""
        return (self.num_positions - self.num_prototypes) // self._frame_size if self._frame_size else 0

    def append(self, frame: MemoryFrame, features: FrameFeatures) -> None:
        """Adds a memorised frame of batch size 1, and makes room if there is too much.

        Args:
            frame: Values of this group's objects.
            features: The frame's features, for its selection.
        """
        columns = {"key": _rows(frame.key), "value": _rows(frame.value.flatten(1, 2))}
        if frame.shrinkage is not None:
            columns["shrinkage"] = _rows(frame.shrinkage)
        if features.selection is not None and self.settings.long_term:
            columns["selection"] = _rows(features.selection)
        self._frame_size = len(columns["key"])
        columns["use"] = columns["key"].new_zeros(self._frame_size)
        columns["life"] = torch.full_like(columns["use"], _NEVER_READ)
        if frame.summary is not None:
            self._summary = frame.summary if self._summary is None else self._summary + frame.summary
        self._set({k: torch.cat([self._columns[k], v]) if self._columns else v for k, v in columns.items()})
        limit = self.settings.max_frames
        if limit is None:
            return
        if not self.settings.long_term:
            if self.num_frames > limit:
                self._drop(self._frame_size, 2 * self._frame_size)
        elif self.num_frames >= limit:
            if self.num_prototypes >= self.settings.max_tokens - self.settings.num_prototypes:
                self._forget()
            self._compress()

    def read(self, features: FrameFeatures) -> Readout:
        """Reads memory for every position of a frame, and counts what was used.

        Args:
            features: The frame's features, of batch size 1.
        """
        height, width = features.key.shape[-2:]
        selection = None if features.selection is None else features.selection.flatten(2)
        with torch.autocast(features.key.device.type, enabled=False):
            shrinkage = self._columns.get("shrinkage")
            if self._augmented is None:
                self._augmented = _augmented(self._columns, with_selection=selection is not None)
            queries = augment_query(features.key.flatten(2), selection, with_shrinkage=shrinkage is not None)[0].T
            size = max(1, _MAX_AFFINITIES // self.num_positions)
            value = torch.cat([self._read(part) for part in torch.split(queries, size)])
        if self.settings.long_term:
            self._columns["life"] += 1
        value = value.T.view(1, self.num_objects, -1, height, width)
        return Readout(value=value, summary=self._summary)

    def remove(self, index: int) -> None:
        """Drops the values of one of the group's objects, by its place."""
        kept = [i for i in range(self.num_objects) if i != index]
        if self._columns:
            values = self._columns["value"].view(self.num_positions, self.num_objects, -1)
            self._columns["value"] = values[:, kept].flatten(1)
        if self._summary is not None:
            self._summary = self._summary[:, kept]
        self.num_objects -= 1

    def _read(self, queries: Tensor) -> Tensor:
        """Reads for some queries (Q, D) with their Cv·N channels; the sparse sum is what makes top-k fast."""
        assert self._augmented is not None
        scores = queries @ self._augmented
        values = self._columns["value"]
        top_k = self.settings.top_k
        if top_k is None or top_k >= self.num_positions:
            weights = scores.softmax(1)
            if self.settings.long_term:
                self._columns["use"] += weights.sum(0)
            return weights.to(values.dtype) @ values
        best, indices = scores.topk(top_k, dim=1, sorted=False)
        weights = best.softmax(1)
        if self.settings.long_term:
            self._columns["use"].index_add_(0, indices.flatten(), weights.flatten())
        return F.embedding_bag(indices, values, mode="sum", per_sample_weights=weights.to(values.dtype))

    def _compress(self) -> None:
        """Turns all but the first and the newest frames into prototypes: the most used positions, smoothed."""
        start = self._frame_size + self.num_prototypes
        end = self.num_positions - (self.settings.min_frames - 1) * self._frame_size
        old = {name: column[start:end] for name, column in self._columns.items()}
        count = min(self.settings.num_prototypes, end - start)
        chosen = (old["use"] / old["life"]).topk(count).indices
        keys, shrinkage, selection = old["key"], old.get("shrinkage"), old.get("selection")
        with torch.autocast(keys.device.type, enabled=False):
            memory = _augmented(old, with_selection=selection is not None)
            queries = augment_query(
                keys[chosen].T[None],
                None if selection is None else selection[chosen].T[None],
                with_shrinkage=shrinkage is not None,
            )[0].T
            weights = (queries @ memory).softmax(1)
        new = {"key": keys[chosen], "value": weights.to(old["value"].dtype) @ old["value"]}
        if shrinkage is not None:
            new["shrinkage"] = weights @ shrinkage
        if selection is not None:
            new["selection"] = selection[chosen]
        new["use"] = torch.zeros_like(old["use"][:count])
        new["life"] = torch.full_like(new["use"], _NEVER_READ)
        self.num_prototypes += count
        self._set({k: torch.cat([column[:start], new[k], column[end:]]) for k, column in self._columns.items()})

    def _forget(self) -> None:
        """Drops the least used prototypes, so that there is room for new ones."""
        start, end = self._frame_size, self._frame_size + self.num_prototypes
        kept = self.settings.max_tokens - self.settings.num_prototypes - self.settings.buffer_tokens
        usage = self._columns["use"][start:end] / self._columns["life"][start:end]
        best = usage.argsort(descending=True, stable=True)[: max(kept, 0)].sort().values + start
        self.num_prototypes = len(best)
        self._set({k: torch.cat([x[:start], x[best], x[end:]]) for k, x in self._columns.items()})

    def _drop(self, start: int, end: int) -> None:
        self._set({name: torch.cat([column[:start], column[end:]]) for name, column in self._columns.items()})

    def _set(self, columns: dict[str, Tensor]) -> None:
        self._columns, self._augmented = columns, None


def _augmented(columns: Mapping[str, Tensor], *, with_selection: bool) -> Tensor:
    """Returns k' (D, P) of some positions, see `networks.memory`."""
    shrinkage = columns.get("shrinkage")
    shrinkage = None if shrinkage is None else shrinkage.T[None]
    return augment_memory(columns["key"].T[None], shrinkage, with_selection=with_selection)[0]


def _rows(x: Tensor) -> Tensor:
    """Turns (1, C, h, w) into (h·w, C)."""
    return x[0].flatten(1).T.contiguous()
