"""Inference: one forward propagation over a whole video, streaming.

Frames come in one at a time and masks go out one at a time; what is kept between them is bounded. Whatever predicts
masks (a network here, the rules of `baselines.py`) is a `Predictor`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ovos_ray.errors import DataError
from ovos_ray.evaluate.infer.graphed import GraphedNetwork
from ovos_ray.evaluate.infer.propagator import Propagator
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks.base import VOSNetwork

__all__ = ["InferenceSettings", "NetworkPredictor", "Prediction", "Predictor", "predict_video"]

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The masks of one frame.

    Attributes:
        mask: (H, W) uint8 object ids.
        ids: Ids of the objects known by now, in order of appearance.
        probabilities: (1+N, H, W) float32, background first, then the objects of `ids`; None if not asked for.
    """

    mask: Mask
    ids: tuple[int, ...] = ()
    probabilities: npt.NDArray[np.float32] | None = None


Predictor = Callable[[Iterable[Image], Mapping[int, Mask]], Iterator[Prediction]]
"""From frames, (H, W, 3) uint8 RGB, and the masks given for some of them, (H, W) uint8 ids, to one prediction each."""


def predict_video(
    network: VOSNetwork,
    frames: Iterable[Image],
    masks: Mapping[int, Mask],
    settings: InferenceSettings | None = None,
    **overrides: Any,
) -> Iterator[Mask]:
    """Yields the mask of every frame of a video.

    Args:
        network: The network; it is put into evaluation mode.
        frames: (H, W, 3) uint8 RGB, all of one size.
        masks: Given masks by frame index, (H, W) uint8 object ids. Frames before the first are background.
        settings: None: the published ones of the network's family.
        **overrides: Fields of the published settings to change, such as `memory_interval=3`.

    Yields:
        (H, W) uint8 object ids at the size of the frames; given masks come back as they are.

    Raises:
        DataError: A mask or frame has another size than the first frame.
        ConfigError: A setting is unknown or out of range.
    """
    predictor = NetworkPredictor(network, settings or InferenceSettings.of(network, **overrides))
    return (prediction.mask for prediction in predictor(frames, masks))


@dataclass(frozen=True)
class NetworkPredictor:
    """Predicts with a network.

    Attributes:
        network: The network; it is put into evaluation mode.
        settings: How it is run.
        soft: Whether predictions carry probabilities.
    """

    network: VOSNetwork
    settings: InferenceSettings
    soft: bool = False

    def __call__(self, frames: Iterable[Image], masks: Mapping[int, Mask]) -> Iterator[Prediction]:
        """Yields one prediction per frame."""
        settings, device = self.settings, next(self.network.parameters()).device
        network: VOSNetwork | GraphedNetwork = self.network.eval()
        if device.type == "cuda":
            network = self._graphed
        runs = [_Run(network, settings, s, f) for s in settings.scales for f in ((False, True)[: 1 + settings.flip])]
        size: tuple[int, ...] | None = None
        for t, (frame, last) in enumerate(_with_last(frames)):
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                raise DataError(f"frame {t} has {_pixels(frame.shape)} pixels, the first one {_pixels(size)}")
            given, ids = self._given(masks.get(t), t, size)
            image = torch.from_numpy(np.array(frame, order="C")).to(device).permute(2, 0, 1).float() / 255
            index = None if given is None else torch.from_numpy(np.array(given, order="C")).to(device)
            with torch.inference_mode(), _autocast(device, settings.precision):
                outputs = [run.step(image, index, ids, last) for run in runs]
                prediction = self._prediction(outputs, runs[0].propagator.ids, given, size)
            yield prediction  # outside the modes, which would otherwise hold for the caller too

    @functools.cached_property
    def _graphed(self) -> GraphedNetwork:
        return GraphedNetwork(self.network)

    def _given(self, mask: Mask | None, t: int, size: tuple[int, ...]) -> tuple[Mask | None, list[int] | None]:
        """Checks a given mask; an empty reference is one object, 1, that is nowhere to be seen."""
        if mask is None:
            return None, None
        if mask.shape != size:
            raise DataError(
                f"the mask of frame {t} has {_pixels(mask.shape)} pixels, the frame {_pixels(size)}",
                "scale masks to the frames' size with nearest neighbour",
            )
        if self.settings.reference == "empty":
            return np.zeros_like(mask), [1]
        return mask, [index for index in np.unique(mask).tolist() if index]

    def _prediction(
        self, outputs: list[Tensor | None], ids: list[int], given: Mask | None, size: tuple[int, ...]
    ) -> Prediction:
        known = [output for output in outputs if output is not None]
        if not known:
            return Prediction(np.zeros(size, np.uint8))
        probabilities = sum(known[1:], known[0]) / len(known)
        lookup = np.array([0, *ids], np.uint8)
        mask = lookup[probabilities.argmax(0).cpu().numpy()]
        if given is not None:
            mask = np.where(given > 0, given, mask)
        return Prediction(mask, tuple(ids), probabilities.cpu().numpy() if self.soft else None)


class _Run:
    """One propagation of a video at one scale, mirrored or not."""

    def __init__(
        self, network: VOSNetwork | GraphedNetwork, settings: InferenceSettings, scale: float, flip: bool
    ) -> None:
        self.propagator = Propagator(network, settings)
        self.shortest_side, self.scale, self.flip = settings.shortest_side, scale, flip

    def step(self, image: Tensor, mask: Tensor | None, ids: list[int] | None, last: bool) -> Tensor | None:
        """Takes (3, H, W) and (H, W), returns (1+N, H, W) float32 probabilities at the same size."""
        height, width = image.shape[-2:]
        size = self._size(height, width)
        if size != (height, width):
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
            if mask is not None:
                mask = F.interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0]
        if self.flip:
            image, mask = image.flip(-1), None if mask is None else mask.flip(-1)
        probabilities = self.propagator.step(image, mask, ids, last=last)
        if probabilities is None:
            return None
        if self.flip:
            probabilities = probabilities.flip(-1)
        if size != (height, width):
            probabilities = F.interpolate(probabilities[None].float(), (height, width), mode="bilinear")[0]
        return probabilities.float()

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size to run at: frames are made smaller only, unless a scale asks for more."""
        shortest = min(height, width)
        side = round(self.scale * (min(shortest, self.shortest_side) if self.shortest_side else shortest))
        return (height, width) if side == shortest else (height * side // shortest, width * side // shortest)


def _with_last(frames: Iterable[Image]) -> Iterator[tuple[Image, bool]]:
    """Pairs each frame with whether it is the last one."""
    iterator = iter(frames)
    try:
        frame = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield frame, False
        frame = following
    yield frame, True


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}" if len(shape) > 1 else str(shape)
