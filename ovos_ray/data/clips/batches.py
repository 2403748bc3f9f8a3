"""Batches: samples become columns, and columns tensors, alike on Ray and in one process (`LocalStream`)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from ovos_ray.data.clips.decode import ClipDecoder
    from ovos_ray.data.clips.plan import Clip, Plan

__all__ = ["NO_LABEL", "LocalStream", "batch_of", "decode_batch"]

NO_LABEL = 255
"""What the label of a frame is filled with where the shards hold none, or nothing is known."""


def decode_batch(decoder: ClipDecoder, clips: Sequence[Clip]) -> dict[str, npt.NDArray[np.generic]]:
    """Decodes clips into the columns of a batch, whose frames are written once, where they stay."""
    size = decoder.data.crop_size
    frames = np.empty((len(clips), decoder.data.clip_length, 3, size, size), np.uint8)
    samples = [decoder(clip, out) for clip, out in zip(clips, frames, strict=True)]
    labels = np.stack([sample.labels for sample in samples])
    labelled = {"labelled": (labels != NO_LABEL).any((2, 3)).astype(np.uint8)} if decoder.further_labels else {}
    return {
        "position": np.array([sample.position for sample in samples], np.int64),
        "frames": frames,
        "labels": labels,
        **labelled,
        "num_objects": np.array([sample.num_objects for sample in samples], np.int64),
        "weight": np.array([sample.weight for sample in samples], np.float32),
        "problem": np.array([sample.problem for sample in samples], np.str_),
    }


def batch_of(columns: Mapping[str, npt.NDArray[Any]], *, copy: bool = False) -> dict[str, torch.Tensor]:
    """Returns a batch, as methods take it.

    That is `frames` (B, T, 3, S, S) uint8, `label` (B, S, S) uint8 of the reference frames, `labels` (B, L, S, S) uint8
    of them (L = 1) or of all frames, and `num_objects` int64, `weight` float32 and `position` int64, (B,) each. Where
    further labels are compared, `labelled` (B, T) uint8 says which frames have one.

    Args:
        columns: From `decode_batch`.
        copy: Whether the tensors need memory of their own.
    """
    batch = {
        name: torch.from_numpy(np.array(column) if copy else column)
        for name, column in columns.items()
        if name != "problem"
    }
    batch["label"] = batch["labels"][:, 0]
    # A label that is not there fills all of its frame.
    if "labelled" not in batch and bool((batch["labels"][:, :, 0, 0] == NO_LABEL).any()):
        batch["labels"] = batch["labels"][:, :1]
    return batch


@dataclass
class LocalStream:
    """Streams one rank's batches of a plan; one step is decoded ahead by a thread.

    Attributes:
        plan: The clips.
        decoder: What turns them into samples.
        start_step: The step of the first batch.
        rank: Whose part of the global batch it is; without Ray a run has one worker, tests have several.
        world_size: How many workers share the global batch.
        stop_step: The step before which it ends; None: the plan's last.
        problems: Unreadable samples met so far.
    """

    plan: Plan
    decoder: ClipDecoder
    start_step: int = 0
    rank: int = 0
    world_size: int = 1
    stop_step: int | None = None
    problems: list[tuple[int, str]] = field(default_factory=list)

    def batches(self) -> Generator[dict[str, torch.Tensor]]:
        """Yields one batch a step (`batch_of`), until the last step of the run or of its segment.

        Raises:
            DataError: A row cannot be read.
        """
        stop = self.plan.steps if self.stop_step is None else self.stop_step
        with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
            ahead = pool.submit(self._batch, self.start_step)
            for step in range(self.start_step, stop):
                batch = ahead.result()
                if step + 1 < stop:
                    ahead = pool.submit(self._batch, step + 1)
                yield batch

    def _batch(self, step: int) -> dict[str, torch.Tensor]:
        columns = decode_batch(self.decoder, self.plan.clips(step, self.rank, self.world_size))
        found = zip(columns["position"].tolist(), columns["problem"].tolist(), strict=True)
        self.problems += [(position, problem) for position, problem in found if problem]
        return batch_of(columns)
