"""Clip merging: another clip's objects are pasted into a clip, as Cutie is trained (fully supervised only).

Shapes: T frames, S crop size.
"""

from __future__ import annotations

import cv2
import numpy as np

from ovos_ray.arrays import UInt8Array

__all__ = ["paste_objects"]

_BLUR_SIZE, _BLUR_SIGMA = (5, 5), 1.0


def paste_objects(
    frames: UInt8Array, labels: UInt8Array, other_frames: UInt8Array, other_labels: UInt8Array
) -> tuple[UInt8Array, UInt8Array]:
    """Pastes every object that the first frame of another clip shows, frame by frame, over what was there.

    Edges are blended with the object's mask under a Gaussian blur; labels are cut hard, and what is covered is gone.

    Args:
        frames: (T, 3, S, S) RGB of the clip.
        labels: (T, S, S) object ids of the clip.
        other_frames: (T, 3, S, S) of the clip whose objects are pasted.
        other_labels: (T, S, S).

    Returns:
        Frames and labels of the merged clip; pasted objects have ids that the clip did not use.
    """
    frames, labels = frames.copy(), labels.copy()
    unused = iter(sorted(set(range(1, 256)) - set(np.unique(labels).tolist())))
    for object_id in np.unique(other_labels[0][other_labels[0] > 0]):
        new_id = next(unused)
        for t, mask in enumerate(other_labels == object_id):
            alpha = cv2.GaussianBlur(mask.astype(np.float32), _BLUR_SIZE, _BLUR_SIGMA)
            frames[t] = np.rint(frames[t] * (1 - alpha) + other_frames[t] * alpha)
            labels[t][mask] = new_id
    return frames, labels
