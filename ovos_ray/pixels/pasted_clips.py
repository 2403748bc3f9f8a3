"""Clips in which objects cut out of one labelled image move over another, whose own objects go along with it.

Where objects are cut out of their own image (`layered_clips.py`), the holes have to be filled, and seams of the filling
look like edges of objects. Here nothing is filled. The image beneath moves as a whole, with its own objects and their
true edges; one or two objects of the other are pasted onto it, in its colours, so that colour does not give them
away. Masks are true in every frame, and nobody has labelled more than the two images.

Shapes: T frames, S crop size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import FloatArray, UInt8Array
from ovos_ray.pixels.augment import draw_colour, recolour
from ovos_ray.pixels.layered_clips import Motion, chained, draw_path
from ovos_ray.pixels.static_clips import ClipSpec, synthesise
from ovos_ray.seeding import generator

__all__ = ["match_colours", "synthesise_pasted"]

_MOTION = Motion(speed=0.08, turn=3.0, growth=0.02)
_GROUND_PACE = 0.6
_MOST_PASTED = 2
_ZOOM = (1.0, 1.3)
_CROP_TRIES = 20


@dataclass(frozen=True)
class _CutOut:
    """An object: its mask (H, W) and, for each frame, a map (2, 3) from pixels of its image to those of the clip."""

    mask: npt.NDArray[np.float32]
    path: FloatArray


def synthesise_pasted(
    image: UInt8Array, label: UInt8Array, ground: UInt8Array, ground_label: UInt8Array, *, spec: ClipSpec
) -> tuple[UInt8Array, UInt8Array]:
    """Makes a clip from two images and their labels.

    Args:
        image: (H, W, 3) uint8 RGB, of which objects are cut out.
        label: (H, W) uint8 object indices.
        ground: (H', W', 3), what they move over.
        ground_label: (H', W').
        spec: What is wanted. Of the augmentation it takes mirror and colours; zooms and angles are those of the paths,
            and nothing is bent.

    Returns:
        Frames (T, 3, S, S) and labels (T, S, S), uint8: pasted objects come first, in the order of what lies in front.
    """
    augmentation, crop_size, num_frames = spec.augmentation, spec.crop_size, spec.num_frames
    if augmentation is None:
        return synthesise(image, label, spec=spec)
    rng = generator(spec.seed, 0, "pasted clip")
    image, label = _shrink(image, label, crop_size)
    ground, ground_label = _shrink(ground, ground_label, crop_size)
    ground = recolour(ground, draw_colour(rng, augmentation.clip_jitter, augmentation.grayscale))
    image = match_colours(image, ground)
    pasted = _cut_out(label, _draw_crop(label, crop_size, augmentation.horizontal_flip, rng), num_frames, rng)
    height, width = ground_label.shape
    crop = _draw_crop(ground_label, crop_size, augmentation.horizontal_flip, rng)
    path = draw_path((width / 2, height / 2), _GROUND_PACE, min(height, width), num_frames, rng, _MOTION)
    frames, labels = [], []
    for t, matrix in enumerate(path):
        matrix = chained(matrix, crop)
        frame = _warp(ground, matrix, crop_size).astype(np.float32)
        mask = _renumbered(_warp(ground_label, matrix, crop_size, cv2.INTER_NEAREST), len(pasted))
        for object_id, cut_out in reversed([*enumerate(pasted, start=1)]):
            alpha = cv2.warpAffine(cut_out.mask, cut_out.path[t], (crop_size, crop_size))
            alpha = cv2.GaussianBlur(alpha, (3, 3), 0.7)  # an edge one pixel soft, as those of the image beneath
            frame += alpha[..., None] * (_warp(image, cut_out.path[t], crop_size) - frame)
            mask[alpha > 0.5] = object_id
        colour = draw_colour(generator(spec.seed, t, "pasted frame"), augmentation.frame_jitter)
        frames.append(recolour(np.rint(frame).clip(0, 255).astype(np.uint8), colour).transpose(2, 0, 1))
        labels.append(mask)
    return np.ascontiguousarray(np.stack(frames)), np.stack(labels)


def match_colours(image: UInt8Array, other: UInt8Array) -> UInt8Array:
    """Returns an image (H, W, 3) with the mean and the covariance of another's colours.

    The linear map is the one that moves colours least: optimal transport between normal distributions.
    """
    (mean, covariance), (wanted_mean, wanted) = (_moments(pixels) for pixels in (image, other))
    root = _root(covariance)
    inverse = np.linalg.inv(root)
    matrix = inverse @ _root(root @ wanted @ root) @ inverse
    mapped = cv2.transform(image, np.column_stack([matrix, wanted_mean - matrix @ mean]))
    return np.asarray(mapped, np.uint8)


def _moments(image: UInt8Array) -> tuple[FloatArray, FloatArray]:
    pixels = image.reshape(-1, 3).astype(np.float64)
    return pixels.mean(0), np.cov(pixels.T) + np.eye(3)  # an image of one colour, too, can be divided by


def _root(matrix: FloatArray) -> FloatArray:
    """Returns the square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    root: FloatArray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root


def _shrink(image: UInt8Array, label: UInt8Array, size: int) -> tuple[UInt8Array, UInt8Array]:
    """Shrinks images that have more pixels than a crop will show, by averaging: a warp would skip pixels."""
    zoom = size * _ZOOM[1] / min(label.shape)
    if zoom >= 1:
        return np.ascontiguousarray(image), np.ascontiguousarray(label)
    height, width = (round(side * zoom) for side in label.shape)
    image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return image, np.asarray(cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _draw_crop(label: UInt8Array, size: int, flip: float, rng: np.random.Generator) -> FloatArray:
    """Returns a map (2, 3) from pixels of an image to those of a crop that shows an object, if one is found."""
    for _ in range(_CROP_TRIES):
        zoom = size / min(label.shape) * rng.uniform(*_ZOOM)
        top, left = (rng.uniform(0, max(side * zoom - size, 0)) for side in label.shape)
        crop = np.array([[zoom, 0.0, -left], [0.0, zoom, -top]])
        if rng.random() < flip:
            crop[0] = [-zoom, 0.0, size - 1 + left]
        if _warp(label, crop, size, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT).any():
            break
    return crop


def _cut_out(label: UInt8Array, crop: FloatArray, num_frames: int, rng: np.random.Generator) -> list[_CutOut]:
    """Cuts one or two objects out, the front one first."""
    objects = rng.permutation(np.unique(label[label > 0])).tolist()
    found = []
    count = int(rng.integers(1, min(_MOST_PASTED, len(objects)) + 1)) if objects else 0
    for object_id in objects[:count]:
        own = label == object_id
        rows, columns = np.nonzero(own)
        path = draw_path((columns.mean(), rows.mean()), 1.0, min(label.shape), num_frames, rng, _MOTION)
        found.append(_CutOut(own.astype(np.float32), np.stack([chained(matrix, crop) for matrix in path])))
    return found


def _renumbered(label: UInt8Array, after: int) -> UInt8Array:
    """Returns a label with `after` added to its ids; what has no room below 256 becomes background."""
    moved = label.astype(np.int64) + after
    return np.where((label > 0) & (moved < 256), moved, 0).astype(np.uint8)


def _warp(
    image: UInt8Array,
    matrix: FloatArray,
    size: int,
    flags: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_REFLECT_101,
) -> UInt8Array:
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=border), np.uint8)
