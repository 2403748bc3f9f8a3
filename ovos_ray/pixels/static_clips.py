"""Synthetic clips from one labelled image, for the pretraining of stage 0 (published with STCN, XMem and Cutie).

Every frame is the image under another affine map, colour jitter and, sometimes, a thin-plate spline. There is no
order in time. Shapes: T frames, S crop size.

Two things differ from the published code. There, STCN is given a label of frame 0 with soft edges; here, it is binary
for all. There, networks learn to segment nothing where a zoom has moved the object out of frame 0; here, such a clip
has no weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ovos_ray.arrays import FloatArray, UInt8Array
from ovos_ray.config import AugmentationConfig
from ovos_ray.pixels.augment import FILL, draw_colour, recolour, rotation_and_shear
from ovos_ray.seeding import generator

__all__ = ["ClipSpec", "bend", "draw_spline", "synthesise", "thin_plate_spline", "warp_pair"]

_NUM_CONTROL_POINTS = 12
_CONTROL_POINT_NOISE = 0.02


@dataclass(frozen=True)
class ClipSpec:
    """What is wanted of a clip that is made from labelled images.

    Attributes:
        num_frames: T.
        crop_size: S.
        seed: Decides everything.
        augmentation: How frames differ, as far as the kind of clip asks it; None repeats the image, resized.
    """

    num_frames: int
    crop_size: int
    seed: int
    augmentation: AugmentationConfig | None


def synthesise(image: UInt8Array, label: UInt8Array, *, spec: ClipSpec) -> tuple[UInt8Array, UInt8Array]:
    """Makes a clip from an image and its label; all of the augmentation is used.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 object indices.
        spec: What is wanted.

    Returns:
        Frames (T, 3, S, S) and labels (T, S, S), uint8.
    """
    augmentation, rng = spec.augmentation, generator(spec.seed, 0, "static clip")
    if augmentation is not None:
        matrix = rotation_and_shear(rng, 0.0, 0.0, label.shape, augmentation.clip_scale)
        image, label = warp_pair(image, label, matrix, cv2.INTER_NEAREST)
        if rng.random() < augmentation.horizontal_flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image = recolour(
            np.ascontiguousarray(image), draw_colour(rng, augmentation.clip_jitter, augmentation.grayscale)
        )
    pairs = [
        _synthesise_frame(image, label, generator(spec.seed, t, "static frame"), spec.crop_size, augmentation)
        for t in range(spec.num_frames)
    ]
    frames = np.stack([np.ascontiguousarray(frame.transpose(2, 0, 1)) for frame, _ in pairs])
    return frames, np.stack([mask for _, mask in pairs])


def _synthesise_frame(
    image: UInt8Array,
    label: UInt8Array,
    rng: np.random.Generator,
    size: int,
    augmentation: AugmentationConfig | None,
) -> tuple[UInt8Array, UInt8Array]:
    flags = cv2.INTER_CUBIC if augmentation and augmentation.interpolation == "bicubic" else cv2.INTER_LINEAR
    if augmentation is not None:
        matrix = rotation_and_shear(
            rng, augmentation.frame_rotation, augmentation.frame_shear, label.shape, augmentation.frame_scale
        )
        image, label = warp_pair(image, label, matrix, flags)
    height, width = label.shape
    zoom = size / min(height, width)
    height, width = max(size, int(height * zoom)), max(size, int(width * zoom))
    # Area averaging where the image shrinks: OpenCV's other modes do not smooth, the published library's do.
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if zoom < 1 else flags)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    top, left = (int(rng.integers(side - size + 1)) for side in (height, width))
    image, label = image[top : top + size, left : left + size], label[top : top + size, left : left + size]
    if augmentation is None:
        return image, label
    image = recolour(np.ascontiguousarray(image), draw_colour(rng, augmentation.frame_jitter))
    if rng.random() >= augmentation.spline:
        return image, label
    return bend(image, label, draw_spline(rng, size), cv2.BORDER_CONSTANT)


def draw_spline(rng: np.random.Generator, size: int) -> FloatArray:
    """Draws a thin-plate spline (2, S, S) as `thin_plate_spline` describes it."""
    source = np.column_stack([rng.permutation(size)[:_NUM_CONTROL_POINTS] / size for _ in range(2)])
    return thin_plate_spline(source, source + rng.normal(0.0, _CONTROL_POINT_NOISE, source.shape), size)


def bend(image: UInt8Array, label: UInt8Array, spline: FloatArray, border: int) -> tuple[UInt8Array, UInt8Array]:
    """Moves the pixels of an image (S, S, 3) and its label (S, S) by a spline; outside, labels are background.

    Args:
        image: RGB.
        label: Object indices.
        spline: From `draw_spline`.
        border: What the image shows outside, one of OpenCV's `BORDER_…`.
    """
    columns, rows = (spline * len(label)).astype(np.float32)
    image = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=border)
    return image, cv2.remap(np.ascontiguousarray(label), columns, rows, cv2.INTER_NEAREST, borderValue=0)


def warp_pair(
    image: UInt8Array, label: UInt8Array, matrix: FloatArray | None, flags: int
) -> tuple[UInt8Array, UInt8Array]:
    """Warps an image and its label by a map (2, 3) from pixels of the result; None: not at all."""
    if matrix is None:
        return image, label
    size, label = label.shape[::-1], np.ascontiguousarray(label)
    inverse = flags | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(np.ascontiguousarray(image), matrix, size, flags=inverse, borderValue=FILL)
    if flags != cv2.INTER_CUBIC:
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        return warped, cv2.warpAffine(label, matrix, size, flags=nearest, borderValue=0)
    # As published where images are warped bicubically: so is the mask, and cut at one half.
    mask = np.zeros_like(label)
    for object_id in np.unique(label[label > 0]):
        covered = (label == object_id).astype(np.float32)
        mask[cv2.warpAffine(covered, matrix, size, flags=inverse, borderValue=0) > 0.5] = object_id
    return warped, mask


def thin_plate_spline(source: FloatArray, target: FloatArray, size: int) -> FloatArray:
    """Returns where each pixel of the result comes from, so that what was at `source` appears at `target`.

    Args:
        source: (P, 2) control points (x, y) in [0, 1]².
        target: (P, 2) where they move to.
        size: S.

    Returns:
        (2, S, S): x and y in [0, 1] for a grid of S x S points from 0 to 1, both included.
    """
    num_points = len(target)
    affine = np.column_stack([np.ones(num_points), target])
    system = np.zeros((num_points + 3, num_points + 3))
    system[:num_points, :num_points] = _kernel(np.linalg.norm(target[:, None] - target[None], axis=2))
    system[:num_points, num_points:] = affine
    system[num_points:, :num_points] = affine.T
    wanted = np.vstack([source - target, np.zeros((3, 2))])
    weights = np.linalg.solve(system, wanted)
    line = np.linspace(0.0, 1.0, size)
    grid = np.stack(np.meshgrid(line, line))
    moved: FloatArray = grid + np.einsum("kc,khw->chw", weights[num_points:], np.stack([np.ones_like(grid[0]), *grid]))
    for point, weight in zip(target, weights[:num_points], strict=True):
        distance = np.hypot(grid[0] - point[0], grid[1] - point[1])
        moved += weight[:, None, None] * _kernel(distance)
    return moved


def _kernel(distance: FloatArray) -> FloatArray:
    """r² log r, finite at 0 as in the published spline library."""
    result: FloatArray = distance**2 * np.log(distance + 1e-6)
    return result
