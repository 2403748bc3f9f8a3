"""GrabCut: the object in a box by its colours and edges, without weights (Rother, Kolmogorov, Blake, SIGGRAPH 2004).

OpenCV's, with three additions that `benchmarks/prompts.py` measures:

- It sees the box and its surroundings at a bounded size, so that it answers while a person waits.
- Where colours alone let the mask vanish or fray, a second try takes the middle of the box for the object; of the two,
  the mask that fills the box better is kept: boxes are drawn close around objects (Lempitsky et al., ICCV 2009).
- A click changes only what hangs together with it, so that correcting one place spoils no other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import UInt8Array

if TYPE_CHECKING:
    from ovos_ray.label.prompts import Box, Click

__all__ = ["grabcut"]

_SIDE = 256  # pixels of the longer side that is seen
_MARGIN = 0.3  # of the box's longer side: surroundings that show what is background
_DOT = 0.03  # of the box's longer side: radius of what a click speaks of
_MIDDLE = 0.3  # of the box's sides: the ellipse that is taken for the object
_ITERATIONS = 3

Bools = npt.NDArray[np.bool_]
Bytes = UInt8Array


def grabcut(image: Bytes, box: Box, clicks: Sequence[Click] = ()) -> Bools:
    """Returns where the object of a box is; see `Prompter`. Without a pixel where none is told from the background.

    A positive click outside of the box widens it by its surroundings.
    """
    longer = max(box[2] - box[0], box[3] - box[1])
    margin = math.ceil(_MARGIN * longer)
    x0, y0, x1, y1 = box
    for x, y, positive in clicks:
        if positive and not (box[0] <= x < box[2] and box[1] <= y < box[3]):
            x0, y0, x1, y1 = min(x0, x - margin), min(y0, y - margin), max(x1, x + margin), max(y1, y + margin)
    left, top = max(0, x0 - margin), max(0, y0 - margin)
    crop = image[top : y1 + margin, left : x1 + margin]
    scale = min(1.0, _SIDE / max(crop.shape[:2]))
    size = [max(1, round(scale * side)) for side in crop.shape[1::-1]]
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA) if scale < 1 else crop

    def place(x: float, y: float) -> tuple[int, int]:
        return max(0, round((x - left) * scale)), max(0, round((y - top) * scale))

    pixels = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    trimap = _in_box(pixels, (*place(*box[:2]), *place(*box[2:])))
    mask = _object(trimap)
    if clicks:
        (a, b), (c, d), radius = place(x0, y0), place(x1, y1), max(1, round(_DOT * longer * scale))
        trimap[b:d, a:c][trimap[b:d, a:c] == cv2.GC_BGD] = cv2.GC_PR_BGD
        dots = np.full_like(trimap, cv2.GC_PR_BGD)
        for x, y, positive in clicks:
            cv2.circle(dots, place(x, y), radius, cv2.GC_FGD if positive else cv2.GC_BGD, cv2.FILLED)
        mask = _changed_at(dots != cv2.GC_PR_BGD, mask, _corrected(pixels, trimap, dots))
    found = np.zeros(image.shape[:2], bool)
    smooth = cv2.resize(mask * np.uint8(255), crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    found[top : y1 + margin, left : x1 + margin] = smooth > 127
    return found


def _in_box(pixels: Bytes, box: Box) -> Bytes:
    """Returns what is known of each pixel from a box alone, as a trimap of OpenCV's."""
    (x0, y0, x1, y1), (height, width) = box, pixels.shape[:2]
    colours = np.full((height, width), cv2.GC_BGD, np.uint8)
    colours[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = cv2.GC_PR_FGD
    if colours.all():  # the box is the image: what touches its edge is taken for background
        colours[[0, -1]] = colours[:, [0, -1]] = cv2.GC_BGD
    middle = colours.copy()
    axes = int((x1 - x0) * _MIDDLE / 2), int((y1 - y0) * _MIDDLE / 2)
    cv2.ellipse(middle, ((x0 + x1) // 2, (y0 + y1) // 2), axes, 0, 0, 360, cv2.GC_FGD, cv2.FILLED)
    return max((_cut(pixels, colours), _cut(pixels, middle)), key=lambda trimap: _fills(_object(trimap), box))


def _corrected(pixels: Bytes, trimap: Bytes, dots: Bytes) -> Bools:
    """Returns the mask that clicks make of a box's trimap; `dots` is one where clicks are for and against."""
    clicked = dots != cv2.GC_PR_BGD
    middle, mask = trimap == cv2.GC_FGD, _object(trimap)
    trimap = np.where(clicked, dots, trimap)
    if (middle & (dots == cv2.GC_BGD)).any():  # it was no good guess, unless the object vanishes without it
        other = _object(_cut(pixels, np.where(middle & ~clicked, np.uint8(cv2.GC_PR_FGD), trimap)))
        if np.count_nonzero(other) > np.count_nonzero(mask) / 4:
            return other
    return _object(_cut(pixels, trimap))


def _changed_at(clicked: Bools, mask: Bools, other: Bools) -> Bools:
    """Returns a mask, changed to another one in the regions of difference that clicks touch."""
    changed = mask != other
    _, regions = cv2.connectedComponents(changed.astype(np.uint8), connectivity=4)
    return np.where(changed & np.isin(regions, regions[changed & clicked]), other, mask)


def _cut(pixels: Bytes, trimap: Bytes) -> Bytes:
    """Returns a trimap cut anew; as it is where it has no background, or nothing else."""
    cv2.setRNGSeed(0)  # of this thread: colours are grouped from random starts
    models = np.zeros((1, 65)), np.zeros((1, 65))
    with contextlib.suppress(cv2.error):
        trimap, *_ = cv2.grabCut(pixels, trimap, None, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return trimap


def _object(trimap: Bytes) -> Bools:
    return np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _fills(mask: Bools, box: Box) -> float:
    """How well a mask's box and a given box agree: intersection over union."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return 0.0
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    width, height = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
    both = max(0, width) * max(0, height)
    return float(both / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - both))
