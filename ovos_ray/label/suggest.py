"""Which frame to label: the most typical one, whose colours differ least from those of all others.

It is the medoid of colour histograms under the Hellinger distance. On DAVIS 2016 (`benchmarks/suggested_frame.py`) it
beats the first frame clearly, and is as good as the middle one; the choice of a sharp frame beside it changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import UInt8Array

__all__ = ["Look", "look_at", "suggested_frame"]

_LONG_SIDE = 160
_BINS = (4, 8, 8)  # of lightness and the two colours
_MOST_COMPARED = 1000

Look = npt.NDArray[np.float32]
"""What is compared of a frame: the square roots of the shares of 256 colours."""


def look_at(image: UInt8Array) -> Look:
    """Returns what is compared of a frame, (H, W, 3) uint8 RGB."""
    scale = _LONG_SIDE / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    counts = cv2.calcHist([lab], [0, 1, 2], None, list(_BINS), [0, 256] * 3).ravel()
    return np.asarray(np.sqrt(counts / counts.sum()), np.float32)


def suggested_frame(looks: Sequence[Look]) -> int:
    """Returns the index of the frame to label; `looks` are those of all frames in order, at least one."""
    # Of long videos every second, third … frame is compared: neighbours look alike.
    compared = range(0, len(looks), -(-len(looks) // _MOST_COMPARED))
    colours = np.stack([looks[t] for t in compared])
    distances = np.sqrt(np.maximum(0, 1 - colours @ colours.T)).mean(1)
    return compared[int(distances.argmin())]
