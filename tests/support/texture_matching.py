"""A rule that knows textures: proof that the synthetic videos can be solved from what a single frame shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.evaluate.infer.inference import Image, Mask, Prediction

_STRIDE = 2


def match_textures(frames: Iterable[Image], masks: Mapping[int, Mask]) -> Iterator[Prediction]:
    """Gives every pixel the object of the nearest local statistics in the first frame; nothing is learnt."""
    reference: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None = None
    for t, frame in enumerate(frames):
        described = _describe(frame)
        if reference is None:
            scale = described.std((0, 1)) + 1e-6
            known = (described / scale)[::_STRIDE, ::_STRIDE].reshape(-1, described.shape[2])
            reference = (known, masks[t][::_STRIDE, ::_STRIDE].ravel(), scale)
        known, labels, scale = reference
        queries = (described / scale)[::_STRIDE, ::_STRIDE]
        flat = queries.reshape(-1, queries.shape[2])
        nearest = ((known**2).sum(1) - 2 * flat @ known.T).argmin(1)
        votes = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels[nearest]].reshape(*queries.shape[:2], -1)
        votes = cv2.resize(cv2.GaussianBlur(votes, (0, 0), 2.0), frame.shape[1::-1])
        mask = votes.argmax(2).astype(np.uint8)
        mask = masks.get(t, mask)
        yield Prediction(mask, tuple(int(index) for index in np.unique(mask) if index))


def _describe(frame: Image) -> npt.NDArray[np.float32]:
    """(H, W, C): structure tensors of the contrast at four scales, averaged over a window of some 6 pixels."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32)[..., 0]
    channels = []
    for sigma in (0.7, 1.4, 2.4, 4.0):
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
        dy, dx = np.gradient(smooth)
        contrast = np.sqrt(cv2.GaussianBlur((grey - cv2.GaussianBlur(grey, (0, 0), 8.0)) ** 2, (0, 0), 6.0)) + 4
        dx, dy = dx / contrast, dy / contrast
        window = max(4.0, 2 * sigma)
        parts = [cv2.GaussianBlur(part, (0, 0), window) for part in (dx * dx, dy * dy, dx * dy)]
        energy = np.sqrt(parts[0] + parts[1])
        channels += [energy, (parts[0] - parts[1]) / (energy + 1e-6), 2 * parts[2] / (energy + 1e-6)]
    return np.stack(channels, 2).astype(np.float32)
