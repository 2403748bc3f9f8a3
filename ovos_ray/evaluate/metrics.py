"""Metrics J and F, equal to the official DAVIS toolkit's and much faster, and `MEASURES`, what is reported of them.

Source: the official toolkit, davis2017-evaluation. The result is the toolkit's to the last bit; the speed comes from
working on the box around each object instead of on the frame, and from boundary maps that are one Python integer each,
one bit a pixel: a shift moves the whole map, and a dilation by the disk is some fifty shifts and unions.

Shapes: T frames, H rows, W columns, K objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import FloatArray, UInt8Array

__all__ = [
    "BOUND_TH",
    "COLUMNS",
    "COMPARED",
    "MEASURES",
    "PRIMARY",
    "Measure",
    "Statistics",
    "binary_scores",
    "boundary_accuracy",
    "boundary_radius",
    "object_scores",
    "region_similarity",
    "statistics",
]

BOUND_TH = 0.008
"""Boundary tolerance as a fraction of the frame diagonal."""

BoolArray = npt.NDArray[np.bool_]
Mask = UInt8Array


def region_similarity(pred: BoolArray, gt: BoolArray, void: BoolArray | None = None) -> FloatArray:
    """Returns J, the intersection over union of every frame; 1 where both masks are empty.

    Args:
        pred: Predicted masks, (T, H, W).
        gt: True masks, (T, H, W).
        void: Pixels that count for neither, (T, H, W).

    Returns:
        (T,) float64 in [0, 1].

    Raises:
        ValueError: If the shapes differ or are not (T, H, W).
    """
    return np.array([_region(p, g) for p, g in _frames(pred, gt, void)], np.float64)


def boundary_accuracy(
    pred: BoolArray, gt: BoolArray, void: BoolArray | None = None, bound_th: float = BOUND_TH
) -> FloatArray:
    """Returns F, the harmonic mean of boundary precision and recall of every frame.

    Args:
        pred: Predicted masks, (T, H, W).
        gt: True masks, (T, H, W).
        void: Pixels cleared in both masks before their boundaries are taken, (T, H, W).
        bound_th: Tolerance as a fraction of the frame diagonal, or in pixels if at least 1.

    Returns:
        (T,) float64 in [0, 1].

    Raises:
        ValueError: If the shapes differ or are not (T, H, W).
    """
    frames = _frames(pred, gt, void)
    radius = boundary_radius(pred.shape[1], pred.shape[2], bound_th)
    scores = []
    for p, g in frames:
        box = _box(cv2.bitwise_or(p, g))
        scores.append(_boundary(p[box], g[box], radius))
    return np.array(scores, np.float64)


def object_scores(pred: Mask, gt: Mask, ids: Sequence[int]) -> FloatArray:
    """Returns J and F of all objects of one frame.

    Args:
        pred: Predicted object indices, (H, W) uint8.
        gt: True object indices, (H, W) uint8.
        ids: The K indices to score; every other index is background.

    Returns:
        (K, 2) float64: J and F of each id.
    """
    if len(ids) == 1:
        return np.array([binary_scores(pred == ids[0], gt == ids[0])])
    radius = boundary_radius(gt.shape[0], gt.shape[1])
    scores = np.ones((len(ids), 2))
    for row, (a, b) in enumerate(_objects(pred, gt, ids)):
        if a.size:
            scores[row] = _region(a, b), _boundary(a, b, radius)
    return scores


def binary_scores(pred: BoolArray, gt: BoolArray) -> tuple[float, float]:
    """Returns J and F of one frame, given boolean masks (H, W)."""
    radius = boundary_radius(gt.shape[0], gt.shape[1])
    a, b = pred.view(np.uint8), gt.view(np.uint8)
    box = _box(cv2.bitwise_or(a, b))
    a, b = a[box], b[box]
    return _region(a, b), _boundary(a, b, radius)


@dataclass(frozen=True)
class Statistics:
    """What is reported of one object's measure over time; the first three are the toolkit's."""

    mean: float
    recall: float
    """Share of frames above 0.5."""
    decay: float
    """Mean of the first quarter of the frames minus mean of the last; quarters share their end frames."""

    @property
    def percent(self) -> Statistics:
        """The same times 100."""
        return Statistics(**{name: 100 * value for name, value in vars(self).items()})


def statistics(values: FloatArray) -> Statistics:
    """Summarises one object's measure over time, (T,) in [0, 1].

    The toolkit keeps frame numbers in a uint8, so its decay is meaningless beyond 256 frames; ours is not. Up to there,
    which covers every DAVIS sequence, they are equal.

    Raises:
        ValueError: If there is no frame.
    """
    count = len(values)
    if count == 0:
        raise ValueError("no frame to summarise")
    edges = np.round(np.linspace(1, count, 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return Statistics(
        mean=float(values.mean()),
        recall=float((values > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


@dataclass(frozen=True)
class Measure:
    """A number that tables print: a statistic of an object's frames, then the mean over objects.

    To add one: a field of `Statistics` with its line in `statistics`, and an entry in `MEASURES`.

    Attributes:
        key: What the metric is called: `final/jf`, `jf` in `result.json`.
        label: What a reader calls it.
        series: What `object_scores` returns and `ObjectScore` holds of every object; of several, their mean.
        statistic: Which of `Statistics`.
        compared: Whether runs log it and comparisons have a column for it; the others are in `evaluate`'s tables alone.
    """

    key: str
    label: str
    series: tuple[str, ...]
    statistic: str = "mean"
    compared: bool = False

    @property
    def column(self) -> str:
        """Its name in `scores.csv`, which has one line an object; empty for a mean of several, which can be derived."""
        return f"{self.series[0]}_{self.statistic}" if len(self.series) == 1 else ""


MEASURES = (
    Measure("jf", "J&F", ("j", "f"), compared=True),
    Measure("j", "J", ("j",), compared=True),
    Measure("j_recall", "J recall", ("j",), "recall"),
    Measure("j_decay", "J decay", ("j",), "decay"),
    Measure("f", "F", ("f",), compared=True),
    Measure("f_recall", "F recall", ("f",), "recall"),
    Measure("f_decay", "F decay", ("f",), "decay"),
)
"""Read by every table, export, plot and log: one entry more is one metric more everywhere."""
COMPARED = tuple(measure for measure in MEASURES if measure.compared)
PRIMARY = MEASURES[0]
"""What decides which configuration is better."""
COLUMNS = tuple(measure.column for measure in MEASURES if measure.column)


def boundary_radius(height: int, width: int, bound_th: float = BOUND_TH) -> int:
    """Returns the boundary tolerance in pixels of frames of this size."""
    return int(bound_th) if bound_th >= 1 else math.ceil(bound_th * math.hypot(height, width))


def _frames(pred: BoolArray, gt: BoolArray, void: BoolArray | None) -> list[tuple[Mask, Mask]]:
    """Pairs the frames as uint8 masks without their void pixels."""
    arrays = [np.asarray(a, dtype=bool) for a in (pred, gt, *(() if void is None else (void,)))]
    if arrays[0].ndim != 3 or any(a.shape != arrays[0].shape for a in arrays):
        raise ValueError(f"masks must be (T, H, W) and of one shape, got {[a.shape for a in arrays]}")
    a, b = arrays[0], arrays[1]
    if void is not None:
        a, b = a & ~arrays[2], b & ~arrays[2]
    return list(zip(a.view(np.uint8), b.view(np.uint8), strict=True))


def _box(mask: Any) -> tuple[slice, slice]:
    """Returns rows and columns around the non-zero pixels, one pixel wider where the frame allows.

    The margin makes the boundary map of the crop the crop of the boundary map.
    """
    x, y, width, height = cv2.boundingRect(mask)
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _objects(pred: Mask, gt: Mask, ids: Sequence[int]) -> Iterator[tuple[Mask, Mask]]:
    """Yields both masks of each id, cut to a `_box` around them; without pixels where neither has any.

    Eight ids take one pass over the frame, a bit each.
    """
    frame = _box(cv2.bitwise_or(pred, gt))
    pred, gt = pred[frame], gt[frame]
    for start in range(0, len(ids), 8):
        part = ids[start : start + 8]
        bits = np.zeros(256, np.uint8)
        bits[list(part)] = 1 << np.arange(len(part), dtype=np.uint8)
        marks = np.asarray(cv2.bitwise_or(cv2.LUT(pred, bits), cv2.LUT(gt, bits)))
        in_rows, in_columns = np.bitwise_or.reduce(marks, axis=1), np.bitwise_or.reduce(marks, axis=0)
        for index in part:
            y, x = _span(in_rows & bits[index]), _span(in_columns & bits[index])
            yield (pred[y, x] == index).view(np.uint8), (gt[y, x] == index).view(np.uint8)


def _span(marks: Mask) -> slice:
    """Returns from the first to the last mark, one wider on both sides; empty if there is none."""
    marked = marks.nonzero()[0]
    return slice(max(marked[0] - 1, 0), marked[-1] + 2) if len(marked) else slice(0)


def _region(pred: Any, gt: Any) -> float:
    union = cv2.countNonZero(cv2.bitwise_or(pred, gt))
    return cv2.countNonZero(cv2.bitwise_and(pred, gt)) / union if union else 1.0


def _boundary(pred: Any, gt: Any, radius: int) -> float:
    """Returns F of two masks, uint8 cut to a `_box` around both."""
    height, width = pred.shape
    # Rows lie `stride` bits apart; the gap between them takes up what the disk moves past their ends.
    stride = -(-(width + max(radius, 1)) // 8) * 8
    inside = int.from_bytes(((1 << width) - 1).to_bytes(stride // 8, "little") * height, "little")
    pred, gt = _boundary_bits(pred, stride) & inside, _boundary_bits(gt, stride) & inside
    num_pred, num_gt = pred.bit_count(), gt.bit_count()
    if num_pred == 0 or num_gt == 0:
        return float(num_pred == num_gt)  # precision or recall is 0 unless both are empty
    precision = (pred & _dilate(gt, stride, radius)).bit_count() / num_pred
    recall = (gt & _dilate(pred, stride, radius)).bit_count() / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary_bits(mask: Any, stride: int) -> int:
    """Marks pixels that differ from their right, lower or lower-right neighbour; beyond the frame nothing differs.

    What lies in the gaps between the rows means nothing.
    """
    height, width = mask.shape
    padded = np.zeros((height + 1, stride), bool)
    padded[:-1, :width] = mask
    padded[-1] = padded[-2]
    padded[:, width] = padded[:, width - 1]
    bits = int.from_bytes(np.packbits(padded, bitorder="little").tobytes(), "little")
    return (bits ^ bits >> 1) | (bits ^ bits >> stride) | (bits ^ bits >> stride + 1)


def _dilate(bits: int, stride: int, radius: int) -> int:
    """Dilates by the disk x² + y² ≤ radius²; the gaps between rows are left dirty.

    Rows of the disk are added from the outermost inwards, those above and those below the centre apart. A row that
    reaches from -w to w is held as one from 0 to 2w, which takes half the shifts, and put right at the end.
    """
    runs, upper, lower = bits, 0, 0
    for steps, widened in _disk_rows(radius):
        for step in steps:
            runs |= runs << step
        upper, lower = upper >> stride - widened | runs, lower << stride + widened | runs
    return (upper | lower) >> radius


@cache
def _disk_rows(radius: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Returns, for each row from the outermost to the centre, the shifts that widen its run and by how much a side."""
    rows, length, before = [], 0, 0
    for dy in range(radius, -1, -1):
        half_width, steps = math.isqrt(radius**2 - dy**2), []
        while length < 2 * half_width:
            steps.append(min(length + 1, 2 * half_width - length))
            length += steps[-1]
        rows.append((tuple(steps), half_width - before))
        before = half_width
    return tuple(rows)
