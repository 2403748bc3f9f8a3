"""Augmentation of clips as published, consistent over frames: clip geometry, clip colour, frame geometry, frame colour.

`draw_parameters` makes every random decision of a clip from one seed; applying them is deterministic. Each step is one
pass over uint8 pixels: PyTorch resizes what is cropped, OpenCV warps (PyTorch warps no tensor bicubically), and all
colour operations of a step, being linear in the pixel, are one 3 x 4 matrix. What would change nothing is skipped.

Against the published pipelines, values are not rounded or clipped between the colour operations of a step.
"""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ovos_ray.arrays import FloatArray, UInt8Array
from ovos_ray.config import AugmentationConfig
from ovos_ray.seeding import generator

__all__ = [
    "FILL",
    "ClipParameters",
    "Colour",
    "Crop",
    "apply_to_frame",
    "apply_to_label",
    "draw_colour",
    "draw_parameters",
    "recolour",
    "rotation_and_shear",
]

FILL = (124, 116, 104)
"""The mean colour, which published augmentation shows where a warp reaches beyond the frame."""

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_GRAY, _SAME = np.tile(_LUMA, (3, 1)), np.eye(3)


@dataclass(frozen=True)
class Crop:
    """A rectangle of the frame in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Colour:
    """A colour jitter: (operation, strength) in order of application.

    Operations and the strengths that change nothing: brightness, contrast, saturation (1), hue (0, in turns);
    `gray` has no strength.
    """

    operations: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ClipParameters:
    """Every random decision of one clip.

    Attributes:
        size: S, the side of the result in pixels.
        flip: Whether the clip is mirrored, before all else.
        clip_warp: Matrix (2, 3) from pixels of the warped frame to pixels of the (mirrored) frame; None: no warp.
        crop: The part that is resized to S x S.
        clip_colour: For all frames.
        frame_warps: Per frame, the same kind of matrix on the S x S result.
        frame_colours: Per frame.
        interpolation: `bilinear` or `bicubic`, of images; labels take the nearest pixel.
    """

    size: int
    flip: bool
    clip_warp: FloatArray | None
    crop: Crop
    clip_colour: Colour
    frame_warps: tuple[FloatArray | None, ...]
    frame_colours: tuple[Colour, ...]
    interpolation: str


def draw_parameters(
    seed: int, config: AugmentationConfig | None, crop_size: int, height: int, width: int, num_frames: int
) -> ClipParameters:
    """Draws the parameters of a clip; those of frame t do not depend on the number of frames.

    Args:
        seed: Decides everything.
        config: None resizes the whole frame and changes nothing else.
        crop_size: S.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        num_frames: T.
    """
    if config is None:
        nothing = (None,) * num_frames, (Colour(),) * num_frames
        return ClipParameters(
            crop_size, False, None, Crop(0, 0, height, width), Colour(), *nothing, interpolation="bilinear"
        )
    rng = generator(seed, 0, "clip augmentation")
    flip = bool(rng.random() < config.horizontal_flip)
    clip_warp = rotation_and_shear(rng, config.clip_rotation, config.clip_shear, (height, width), config.clip_scale)
    crop = _random_resized_crop(rng, config, height, width)
    clip_colour = draw_colour(rng, config.clip_jitter, config.grayscale)
    frame_rngs = [generator(seed, t, "frame augmentation") for t in range(num_frames)]
    return ClipParameters(
        size=crop_size,
        flip=flip,
        clip_warp=clip_warp,
        crop=crop,
        clip_colour=clip_colour,
        frame_warps=tuple(
            rotation_and_shear(r, config.frame_rotation, config.frame_shear, (crop_size, crop_size), config.frame_scale)
            for r in frame_rngs
        ),
        frame_colours=tuple(draw_colour(r, config.frame_jitter) for r in frame_rngs),
        interpolation=config.interpolation,
    )


def apply_to_frame(frame: UInt8Array, parameters: ClipParameters, t: int, out: UInt8Array | None = None) -> Tensor:
    """Augments frame t of a clip: (H, W, 3) uint8 RGB to (3, S, S) uint8, which share the memory of `out` if given."""
    image = _crop_and_resize(frame, parameters, parameters.interpolation)
    image = recolour(image, parameters.clip_colour)
    image = _warp(image, parameters.frame_warps[t], image.shape[:2], _CV2_FLAGS[parameters.interpolation], FILL)
    image = recolour(image, parameters.frame_colours[t])
    planes = np.empty((3, *image.shape[:2]), np.uint8) if out is None else out
    for channel in range(3):
        cv2.extractChannel(image, channel, planes[channel])
    return torch.from_numpy(planes)


def apply_to_label(label: UInt8Array, parameters: ClipParameters, t: int) -> Tensor:
    """Gives the label of frame t the frame's geometry: (H, W) uint8 to (S, S) uint8, 0 beyond the frame."""
    cropped = _crop_and_resize(label, parameters, _NEAREST)
    warped = _warp(cropped, parameters.frame_warps[t], cropped.shape[:2], cv2.INTER_NEAREST, 0)
    return torch.from_numpy(np.ascontiguousarray(warped))


_NEAREST = "nearest-exact"
_CV2_FLAGS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def _crop_and_resize(pixels: UInt8Array, parameters: ClipParameters, mode: str) -> UInt8Array:
    """Flip, clip warp, crop and resize of (H, W, 3) or (H, W); only pixels inside the crop are touched."""
    crop = parameters.crop
    if parameters.clip_warp is None:
        left = pixels.shape[1] - crop.left - crop.width if parameters.flip else crop.left
        pixels = pixels[crop.top : crop.top + crop.height, left : left + crop.width]
    if parameters.flip:
        pixels = np.asarray(cv2.flip(pixels, 1), np.uint8)
    if parameters.clip_warp is not None:
        matrix = parameters.clip_warp.copy()
        matrix[:, 2] += matrix[:, :2] @ (crop.left, crop.top)
        is_label = mode == _NEAREST
        flags = cv2.INTER_NEAREST if is_label else _CV2_FLAGS[parameters.interpolation]
        pixels = _warp(pixels, matrix, (crop.height, crop.width), flags, 0 if is_label else FILL)
    array = _resize(np.ascontiguousarray(np.atleast_3d(pixels)), parameters.size, mode)
    return array if pixels.ndim == 3 else array[..., 0]


def _resize(pixels: UInt8Array, size: int, mode: str) -> UInt8Array:
    """As torchvision resizes with antialiasing, bit for bit: (H, W, C) to (S, S, C).

    It is done without torchvision, whose import takes a second and 86 MiB of every process that decodes.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    smooth = {} if mode == _NEAREST else {"align_corners": False, "antialias": True}
    tensor = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    # As torchvision: elsewhere PyTorch's own arithmetic on bytes is slower than that on floating point numbers.
    if mode == "bilinear" and not _RESIZES_BYTES:
        tensor = tensor.float()
    resized = torch.nn.functional.interpolate(tensor, (size, size), mode=mode, **smooth)
    if resized.is_floating_point():
        resized = resized.round_().to(torch.uint8)
    array: UInt8Array = resized[0].permute(1, 2, 0).numpy()
    return array


_FAST_BYTES = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
_RESIZES_BYTES = _FAST_BYTES or platform.machine() in ("aarch64", "arm64")


def _warp(
    pixels: UInt8Array, matrix: FloatArray | None, size: tuple[int, int], flags: int, fill: int | tuple[int, ...]
) -> UInt8Array:
    if matrix is None:
        return pixels
    height, width = size
    source = np.ascontiguousarray(pixels)
    warped: UInt8Array = cv2.warpAffine(
        source, matrix, (width, height), flags=flags | cv2.WARP_INVERSE_MAP, borderValue=fill
    )
    return warped


def rotation_and_shear(
    rng: np.random.Generator,
    degrees: float,
    shear: float,
    size: tuple[int, ...],
    scale: tuple[float, float] = (1.0, 1.0),
) -> FloatArray | None:
    """Draws a random affine map about the centre, as torchvision's `RandomAffine` parametrises it.

    Args:
        rng: Where the angle, the scale and the horizontal shear are drawn from.
        degrees: The angle is uniform in ± this; positive turns clockwise.
        shear: The shear angle is uniform in ± this, in degrees.
        size: Height and width in pixels.
        scale: The zoom is uniform in this range.

    Returns:
        The matrix (2, 3) from pixels of the result to pixels of the source, or None if all ranges are empty.
    """
    angle, skew = (math.radians(rng.uniform(-limit, limit)) for limit in (degrees, shear))
    zoom = rng.uniform(*scale)
    if degrees == shear == 0 and scale == (1.0, 1.0):
        return None
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(zoom * rotation @ np.array([[1.0, -math.tan(skew)], [0.0, 1.0]]))
    height, width = size
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([inverse, centre - inverse @ centre])


def _random_resized_crop(rng: np.random.Generator, config: AugmentationConfig, height: int, width: int) -> Crop:
    """As torchvision's `RandomResizedCrop`: ten tries, then the largest central crop of an allowed ratio."""
    smallest, largest = config.crop_ratio
    for _ in range(10):
        area = height * width * rng.uniform(*config.crop_scale)
        ratio = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    ratio = min(max(width / height, smallest), largest)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def draw_colour(rng: np.random.Generator, jitter: tuple[float, float, float, float], grayscale: float = 0.0) -> Colour:
    """Draws a colour jitter in random order, and whether colour is lost at the end.

    Args:
        rng: Advanced by the same number of draws whatever comes out.
        jitter: Half ranges of brightness, contrast and saturation around 1, and of hue around 0.
        grayscale: Probability.
    """
    names = ("brightness", "contrast", "saturation", "hue")
    centres = (1.0, 1.0, 1.0, 0.0)
    strengths = [rng.uniform(max(0.0, c - j) if c else -j, c + j) for c, j in zip(centres, jitter, strict=True)]
    order = [int(i) for i in rng.permutation(4)]
    operations = [(names[i], strengths[i]) for i in order if jitter[i]]
    if rng.random() < grayscale:
        operations.append(("gray", 0.0))
    return Colour(tuple(operations))


def recolour(image: UInt8Array, colour: Colour) -> UInt8Array:
    """Applies a colour jitter to (H, W, 3) uint8 RGB, in one pass unless the hue turns."""
    if not colour.operations:
        return image
    mean = np.array(cv2.mean(image)[:3])
    matrix, offset = _SAME, np.zeros(3)
    for operation, strength in colour.operations:
        if operation == "hue":
            image = _turn_hue(_apply_matrix(image, matrix, offset), strength)
            mean, matrix, offset = np.array(cv2.mean(image)[:3]), _SAME, np.zeros(3)
            continue
        # The mean of what the operations before have made: contrast pulls every pixel towards its gray value.
        gray_mean = float(_LUMA @ (matrix @ mean + offset))
        if operation == "contrast":
            matrix, offset = strength * matrix, strength * offset + (1 - strength) * gray_mean
            continue
        if operation == "gray":
            step = _TO_GRAY
        else:
            step = strength * _SAME
            if operation == "saturation":
                step = step + (1 - strength) * _TO_GRAY
        matrix, offset = step @ matrix, step @ offset
    return _apply_matrix(image, matrix, offset)


def _apply_matrix(image: UInt8Array, matrix: FloatArray, offset: FloatArray) -> UInt8Array:
    result: UInt8Array = cv2.transform(np.ascontiguousarray(image), np.column_stack([matrix, offset]))
    return result


def _turn_hue(image: UInt8Array, turns: float) -> UInt8Array:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)  # wraps around, as hues do
    turned: UInt8Array = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return turned
