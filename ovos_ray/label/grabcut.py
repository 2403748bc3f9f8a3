"""GrabCut: the object in a box by its colours and edges, without weights (Rother, Kolmogorov, Blake, SIGGRAPH 2004).

OpenCV's, with three additions that `benchmarks/prompts.py` measures. It sees the box and its surroundings at a bounded
size, so that it answers while a person waits. Where colours alone let the mask vanish or fray, a second try takes the
middle of the box for the object; of the two, the mask that fills the box better is kept (a box is drawn close around an
object: Lempitsky et al., ICCV 2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ovos_ray.label.prompts import Box, Click

__all__ = ["grabcut"]

_SIDE = 256  # pixels of the longer side that is seen
_MARGIN = 0.3  # of the box's longer side: surroundings that show what is background
_DOT = 0.03  # of the box's longer side: radius of what a click speaks of
_MIDDLE = 0.3  # of the box's sides: the ellipse that is taken for the object
_ITERATIONS = 3


def grabcut(image: npt.NDArray[np.uint8], box: Box, clicks: Sequence[Click] = ()) -> npt.NDArray[np.bool_]:
    """Returns where the object of a box is; see `Prompter`. Without a pixel where no object is told from background.

    A positive click outside of the box widens it.
    """
    sure = [click for click in clicks if click.positive]
    longer = max(box[2] - box[0], box[3] - box[1])
    margin = math.ceil(_MARGIN * longer)
    x0, y0, x1, y1 = box
    for x, y, _ in sure:
        if not (box[0] <= x < box[2] and box[1] <= y < box[3]):
            x0, y0, x1, y1 = min(x0, x - margin), min(y0, y - margin), max(x1, x + margin), max(y1, y + margin)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(x1, image.shape[1]), min(y1, image.shape[0])
    left, top = max(0, x0 - margin), max(0, y0 - margin)
    crop = image[top : y1 + margin, left : x1 + margin]
    scale = min(1.0, _SIDE / max(crop.shape[:2]))
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else crop
    pixels = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)

    def place(x: float, y: float) -> tuple[int, int]:
        return round((x - left) * scale), round((y - top) * scale)

    (a, b), (c, d) = place(x0, y0), place(x1, y1)
    trimap = np.full(pixels.shape[:2], cv2.GC_BGD, np.uint8)
    trimap[b : max(d, b + 1), a : max(c, a + 1)] = cv2.GC_PR_FGD
    if (trimap != cv2.GC_BGD).all():  # the box is the image: what touches its edge is taken for background
        trimap[[0, -1]] = trimap[:, [0, -1]] = cv2.GC_BGD
    middle = trimap.copy()
    centre, axes = ((a + c) // 2, (b + d) // 2), (int((c - a) * _MIDDLE / 2), int((d - b) * _MIDDLE / 2))
    cv2.ellipse(middle, centre, axes, 0, 0, 360, cv2.GC_FGD, cv2.FILLED)
    tries = [trimap] if sure else [trimap, middle]  # who clicks on the object says where it is
    for one in tries:
        for x, y, positive in clicks:
            dot = max(1, round(_DOT * longer * scale))
            cv2.circle(one, place(x, y), dot, cv2.GC_FGD if positive else cv2.GC_BGD, cv2.FILLED)
    masks = [_cut(pixels, one) for one in tries]
    best = max(masks, key=lambda mask: _fills(mask, (a, b, c, d)))
    found = np.zeros(image.shape[:2], bool)
    smooth = cv2.resize(best * np.uint8(255), crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    found[top : y1 + margin, left : x1 + margin] = smooth > 127
    return found


def _cut(pixels: npt.NDArray[np.uint8], trimap: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Cuts the object out by what is known of each pixel; nothing where there is no background, or no object."""
    cv2.setRNGSeed(0)  # of this thread: colours are grouped from random starts
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        trimap, *_ = cv2.grabCut(pixels, trimap, None, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return np.zeros(trimap.shape, bool)
    return np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _fills(mask: npt.NDArray[np.bool_], box: Box) -> float:
    """How well a mask's box and a given box agree: intersection over union."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return 0.0
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    width, height = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
    both = max(0, width) * max(0, height)
    return float(both / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - both))
