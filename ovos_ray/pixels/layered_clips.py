"""Clips in which every object of one labelled image goes its own way, over a background that moves too.

Under one affine map (`static_clips.py`) objects stay where they are on their background, so that a network may learn to
look there. Here they are cut out, the hole is filled with background from elsewhere in the image, and all are put
together again along smooth paths: objects move against the background, hide one another and leave the crop, masks are
true in every frame, and nobody has labelled more than the one image.

Shapes: T frames, S crop size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import FloatArray, UInt8Array
from ovos_ray.pixels.augment import draw_colour, recolour, rotation_and_shear
from ovos_ray.pixels.static_clips import ClipSpec, bend, draw_spline, synthesise, warp_pair
from ovos_ray.seeding import generator

__all__ = ["Motion", "chained", "draw_path", "fill_holes", "synthesise_layers"]

_BACKGROUND_PACE = 0.6
_CROP_TRIES = 20
_FILL_TRIES = 60
_HALO = np.ones((5, 5), np.uint8)  # the blurred edge of an object is not background


@dataclass(frozen=True)
class Motion:
    """Standard deviations of the motion from frame to frame. A path is straight and even, but for a tremor.

    Attributes:
        speed: Way, in shorter image sides.
        turn: Degrees.
        growth: Of the logarithm of the size.
        tremor: In shorter image sides.
    """

    speed: float = 0.08
    turn: float = 10.0
    growth: float = 0.05
    tremor: float = 0.01


_MOTION = Motion()


@dataclass(frozen=True)
class _Layer:
    """A part of the image and where it is in each frame: `path` (T, 2, 3) maps pixels of the image to those of it."""

    object_id: int
    alpha: npt.NDArray[np.float32]
    path: FloatArray


def synthesise_layers(image: UInt8Array, label: UInt8Array, *, spec: ClipSpec) -> tuple[UInt8Array, UInt8Array]:
    """Makes a clip as `synthesise` does, with all of the augmentation but its angles: the paths have their own."""
    augmentation, crop_size = spec.augmentation, spec.crop_size
    if augmentation is None:
        return synthesise(image, label, spec=spec)
    rng = generator(spec.seed, 0, "layers")
    image, label = warp_pair(
        image, label, rotation_and_shear(rng, 0.0, 0.0, label.shape, augmentation.clip_scale), cv2.INTER_NEAREST
    )
    if rng.random() < augmentation.horizontal_flip:
        image, label = image[:, ::-1], np.ascontiguousarray(label[:, ::-1])
    image = recolour(np.ascontiguousarray(image), draw_colour(rng, augmentation.clip_jitter, augmentation.grayscale))
    in_front = rng.permutation(np.unique(label[label > 0])).tolist()
    background = fill_holes(image, label > 0, rng)
    crop = _draw_crop(label, crop_size, rng)
    height, width = label.shape
    layers = [_layer(label, int(object_id), spec.num_frames, rng) for object_id in in_front]
    ground = draw_path((width / 2, height / 2), _BACKGROUND_PACE, min(height, width), spec.num_frames, rng)
    frames, labels = [], []
    for t in range(spec.num_frames):
        frame, mask = _compose(image, background, ground[t], layers, t, crop, crop_size)
        frame_rng = generator(spec.seed, t, "layered frame")
        frame = recolour(frame, draw_colour(frame_rng, augmentation.frame_jitter))
        if frame_rng.random() < augmentation.spline:
            frame, mask = bend(frame, mask, draw_spline(frame_rng, crop_size), cv2.BORDER_REFLECT_101)
        frames.append(frame.transpose(2, 0, 1))
        labels.append(mask)
    return np.ascontiguousarray(np.stack(frames)), np.stack(labels)


def fill_holes(image: UInt8Array, holes: npt.NDArray[np.bool_], rng: np.random.Generator) -> UInt8Array:
    """Returns an image (H, W, 3) with its holes (H, W) covered by other parts of it; the rest is inpainted.

    Texture goes on where inpainting alone would leave a smooth spot, which would give the place away.
    """
    holes = cv2.dilate(holes.astype(np.uint8), _HALO) > 0
    filled, left = image.copy(), holes.copy()
    for _ in range(_FILL_TRIES):
        if not left.any():
            return filled
        shift = tuple(int(rng.integers(side)) for side in holes.shape)
        covers = left & ~np.roll(holes, shift, (0, 1))
        if covers.sum() >= 0.2 * left.sum():
            filled[covers] = np.roll(image, shift, (0, 1))[covers]
            left &= ~covers
    return np.asarray(cv2.inpaint(filled, left.astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)


def _draw_crop(label: UInt8Array, size: int, rng: np.random.Generator) -> FloatArray:
    """Returns a map (2, 3) from pixels of the image to those of a crop that shows an object, if one is found."""
    height, width = label.shape
    zoom = size / min(height, width)
    for _ in range(_CROP_TRIES):
        left, top = (int(rng.integers(max(size, int(side * zoom)) - size + 1)) for side in (width, height))
        crop = np.array([[zoom, 0.0, -left], [0.0, zoom, -top]])
        if cv2.warpAffine(label, crop, (size, size), flags=cv2.INTER_NEAREST).any():
            break
    return crop


def _layer(label: UInt8Array, object_id: int, num_frames: int, rng: np.random.Generator) -> _Layer:
    rows, columns = np.nonzero(label == object_id)
    path = draw_path((columns.mean(), rows.mean()), 1.0, min(label.shape), num_frames, rng)
    return _Layer(object_id, (label == object_id).astype(np.float32), path)


def draw_path(
    centre: tuple[float, float],
    pace: float,
    side: int,
    num_frames: int,
    rng: np.random.Generator,
    motion: Motion = _MOTION,
) -> FloatArray:
    """Returns maps (T, 2, 3) that move, turn and grow what is around a centre (x, y); the first one changes nothing.

    Args:
        centre: In pixels.
        pace: By what speed, turn and tremor are multiplied.
        side: The shorter side of the image in pixels.
        num_frames: T.
        rng: Of the clip.
        motion: How much changes from frame to frame.
    """
    velocity, turn = rng.normal(0, pace * motion.speed * side, 2), rng.normal(0, pace * motion.turn)
    growth = rng.normal(0, motion.growth)
    tremor = rng.normal(0, pace * motion.tremor * side, (num_frames, 2))
    maps = []
    for t in range(num_frames):
        matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), turn * t, float(np.exp(growth * t)))
        matrix[:, 2] += velocity * t + (tremor[t] if t else 0)
        maps.append(matrix)
    return np.stack(maps)


def _compose(
    image: UInt8Array,
    background: UInt8Array,
    ground: FloatArray,
    layers: list[_Layer],
    t: int,
    crop: FloatArray,
    size: int,
) -> tuple[UInt8Array, UInt8Array]:
    """Returns frame t (S, S, 3) and its label (S, S); later layers lie in front, with edges one pixel soft."""
    frame = _warp(background, ground, crop, size).astype(np.float32)
    mask = np.zeros((size, size), np.uint8)
    for layer in layers:
        alpha = cv2.warpAffine(layer.alpha, chained(layer.path[t], crop), (size, size))
        alpha = cv2.GaussianBlur(alpha, (3, 3), 0.7)
        frame += alpha[..., None] * (_warp(image, layer.path[t], crop, size) - frame)
        mask[alpha > 0.5] = layer.object_id
    return np.rint(frame).clip(0, 255).astype(np.uint8), mask


def _warp(image: UInt8Array, matrix: FloatArray, crop: FloatArray, size: int) -> UInt8Array:
    warped = cv2.warpAffine(image, chained(matrix, crop), (size, size), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8)


def chained(first: FloatArray, second: FloatArray) -> FloatArray:
    """Returns one map (2, 3) that does what two do."""
    last = np.array([[0.0, 0.0, 1.0]])
    both: FloatArray = (np.vstack([second, last]) @ np.vstack([first, last]))[:2]
    return both
