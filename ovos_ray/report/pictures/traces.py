"""Traces: how stored predictions follow the truth over time, and how much they merely copy the first mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import FloatArray, UInt8Array
from ovos_ray.errors import DataError
from ovos_ray.report.pictures.pictures import or_nothing
from ovos_ray.report.pictures.stored import Stored

__all__ = ["Trace", "mean_copy_score", "traces"]

_FRAMES = 30
"""Frames of a sequence that a trace samples at most, evenly."""
_READERS = 4


@dataclass(frozen=True)
class Trace:
    """Similarity of one sequence's predictions over (a sample of) its labelled frames, mean over objects, percent.

    Attributes:
        truth: J of each prediction against the true mask.
        first: J of each prediction against the first mask, which is what copying would give.
    """

    truth: FloatArray
    first: FloatArray

    @property
    def copy_score(self) -> float:
        """Mean of `first` minus mean of `truth`, in points: above zero, predictions resemble the first mask more."""
        return float(self.first.mean() - self.truth.mean())


def mean_copy_score(found: Mapping[str, Trace]) -> float:
    """Returns the mean over sequences."""
    return float(np.mean([trace.copy_score for trace in found.values()]))


def traces(stored: Sequence[Stored], sequences: Collection[str] = ()) -> dict[str, dict[str, Trace]]:
    """Returns how the stored predictions resemble the truth and the first mask.

    Args:
        stored: The predictions.
        sequences: Only these; none stands for all.

    Returns:
        By label of the row, by sequence; without what cannot be read.
    """
    found: dict[str, dict[str, Trace]] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for one in stored:
            wanted = [sequence for sequence in one.sequences if not sequences or sequence in sequences]
            jobs = {sequence: readers.submit(_trace, one, sequence) for sequence in wanted}
            for sequence, job in jobs.items():
                trace = or_nothing(job.result, f"trace of {sequence} of {one.row.label}")
                if trace is not None:
                    found.setdefault(one.row.label, {})[sequence] = trace
    return found


def _trace(stored: Stored, sequence: str) -> Trace:
    video = stored.video(sequence)
    start = video.first_label
    first = _small(video.mask(start), stored.merged)
    objects = [int(index) for index in np.unique(first) if index]
    truth, copied = [], []
    later = [index for index in video.masks if index > start]
    for index in later[:: -(-len(later) // _FRAMES) or 1]:
        pred = _small(stored.mask(video, index), stored.merged)
        true = _small(video.mask(index), stored.merged)
        truth.append(np.mean([_iou(pred == o, true == o) for o in objects]))
        copied.append(np.mean([_iou(pred == o, first == o) for o in objects]))
    if not truth:
        raise DataError(f"{sequence} has no mask after the first")
    return Trace(100 * np.array(truth), 100 * np.array(copied))


def _small(mask: UInt8Array, merged: bool) -> UInt8Array:
    """Every second pixel is enough to draw a curve with, at a quarter of the time."""
    half = mask[::2, ::2]
    return np.minimum(half, 1) if merged else half


def _iou(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0
