"""What can be had without learning: the rules that a trained network must beat.

Both are `inference.Predictor`s, so they are predicted, stored and scored as networks are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.evaluate.infer.inference import Image, Mask, Prediction

__all__ = ["copy_first_mask", "match_colours"]

_BINS = 32
_BLUR_SIGMA = 2.0


def copy_first_mask(frames: Iterable[Image], masks: Mapping[int, Mask]) -> Iterator[Prediction]:
    """Repeats the given mask in every frame; objects given later are laid over it."""
    current: Mask | None = None
    for t, frame in enumerate(frames):
        if current is None:
            current = np.zeros(frame.shape[:2], np.uint8)
        if t in masks:
            current = np.where(masks[t] > 0, masks[t], current)
        yield Prediction(current, _ids(current))


def match_colours(frames: Iterable[Image], masks: Mapping[int, Mask]) -> Iterator[Prediction]:
    """Gives every pixel the object of the nearest colour in the labelled frame.

    Colours are those of the blurred frame in Lab, in 32³ bins. A bin belongs to the object (or background) that most of
    its labelled pixels belong to, and an unseen bin to its nearest seen one.
    """
    votes = np.zeros((_BINS**3, 256), np.int64)
    table: Mask | None = None
    for t, frame in enumerate(frames):
        bins = _bins(frame)
        given = masks.get(t)
        if given is not None:
            # After the first mask, unlabelled pixels are unknown, not background.
            labelled = np.ones_like(given, bool) if table is None else given > 0
            np.add.at(votes, (bins[labelled], given[labelled]), 1)
            table = _nearest(votes)
        mask = np.zeros(frame.shape[:2], np.uint8) if table is None else table[bins]
        if given is not None:
            mask = np.where(given > 0, given, mask)
        yield Prediction(mask, _ids(mask))


def _bins(frame: Image) -> npt.NDArray[np.int64]:
    lab = cv2.cvtColor(cv2.GaussianBlur(frame, (0, 0), _BLUR_SIGMA), cv2.COLOR_RGB2LAB)
    parts = np.asarray(lab, np.int64) * _BINS // 256
    return np.ravel_multi_index((parts[..., 0], parts[..., 1], parts[..., 2]), (_BINS,) * 3)


def _nearest(votes: npt.NDArray[np.int64]) -> Mask:
    """Returns the object of every bin."""
    seen = np.flatnonzero(votes.any(1))
    winners = votes[seen].argmax(1).astype(np.uint8)
    centres = np.stack(np.unravel_index(np.arange(len(votes)), (_BINS,) * 3), 1).astype(np.float32)
    known = centres[seen]
    table = np.empty(len(votes), np.uint8)
    for part in np.array_split(np.arange(len(votes)), _BINS):
        # |a - b|² without |a|², which is the same for all candidates.
        distance = (known**2).sum(1) - 2 * centres[part] @ known.T
        table[part] = winners[distance.argmin(1)]
    return table


def _ids(mask: Mask) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unique(mask) if index)
