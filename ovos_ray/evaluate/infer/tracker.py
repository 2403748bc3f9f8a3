"""A session for streams: frames in, masks out, one at a time; what is kept between them is bounded.

`NetworkPredictor` walks over videos with the same class, so that a stream gives the very masks that `predict` writes:

    tracker = Tracker(network)
    tracker.add(mask)                 # of the frame that comes next
    for frame in camera:
        show(tracker.step(frame))
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ovos_ray.arrays import UInt8Array
from ovos_ray.errors import DataError
from ovos_ray.evaluate.infer.graphed import GraphedNetwork
from ovos_ray.evaluate.infer.propagator import Propagator
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.networks.base import VOSNetwork

__all__ = ["Image", "Mask", "Prediction", "Tracker", "best_device"]

Image = UInt8Array
Mask = UInt8Array


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


def best_device() -> torch.device:
    """Returns CUDA where there is a GPU, else MPS (Apple), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Tracker:
    """Follows objects through a stream of frames.

    Memory stays bounded however long the stream is: see `InferenceSettings`.

    Args:
        network: The network; it is put into evaluation mode.
        settings: How it is run; None: the published settings of its family.
        device: Where to run, such as `cuda`, `mps` or `cpu`, and `auto` for the best there is; the network is moved
            there. None: where the network is.
        soft: Whether predictions carry probabilities.
        **overrides: Fields of the published settings to change, such as `memory_interval=3`.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """

    def __init__(
        self,
        network: VOSNetwork | GraphedNetwork,
        settings: InferenceSettings | None = None,
        *,
        device: str | torch.device | None = None,
        soft: bool = False,
        **overrides: Any,
    ) -> None:
        module = network.network if isinstance(network, GraphedNetwork) else network
        module.eval()
        if device is not None:
            module.to(best_device() if device == "auto" else device)
        self.device = next(module.parameters()).device
        self.settings = settings or InferenceSettings.of(module, **overrides)
        if self.device.type == "cuda" and isinstance(network, VOSNetwork):
            network = GraphedNetwork(network)
        flips = (False, True)[: 1 + self.settings.flip]
        self._runs = [_Run(network, self.settings, scale, flip) for scale in self.settings.scales for flip in flips]
        self._soft = soft
        self._given: tuple[Mask, list[int]] | None = None
        self._size: tuple[int, ...] | None = None
        self._count = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the objects followed, in order of appearance."""
        return tuple(self._runs[0].propagator.ids)

    def add(self, mask: npt.NDArray[Any], ids: Sequence[int] | None = None) -> None:
        """Gives a mask for the frame that `step` is called with next: new objects, or corrections of known ones.

        Objects that it does not show go on as predicted. It is memorised at once, beside what is known of the objects.

        Args:
            mask: (H, W) object ids, or bool for one object.
            ids: The objects it is about; one without a pixel is not to be seen. None: those with a pixel in it.

        Raises:
            DataError: It is no such mask, or shows other objects than `ids`.
        """
        if mask.dtype == bool:
            mask = mask * np.uint8(ids[0] if ids else 1)
        shown = [index for index in np.unique(mask).tolist() if index]
        listed = shown if ids is None else [int(index) for index in ids]
        if mask.ndim != 2 or mask.dtype.kind not in "ui" or any(not 0 < index < 256 for index in [*shown, *listed]):
            what = f"a mask of shape {mask.shape} and type {mask.dtype} with objects {sorted({*shown, *listed})[:9]}"
            raise DataError(what, "give (H, W) integers, 0 for background and 1 to 255 for objects")
        if set(shown) - set(listed):
            raise DataError(f"a mask of {shown}, but ids={listed}", "list all objects of the mask, or leave ids out")
        mask = mask.astype(np.uint8)
        if self._given is not None and self._given[0].shape == mask.shape:  # the later one lies over the earlier one
            mask = np.where(mask > 0, mask, self._given[0])
            listed = self._given[1] + [index for index in listed if index not in self._given[1]]
        self._given = mask, listed

    def remove(self, index: int) -> None:
        """Stops following an object, and frees its memory.

        Raises:
            DataError: No such object is followed.
        """
        if index not in self.ids:
            raise DataError(f"no object {index} is followed", f"there are {', '.join(map(str, self.ids)) or 'none'}")
        for run in self._runs:
            run.propagator.remove(index)

    def step(self, frame: Image) -> Mask:
        """Goes on to the next frame, (H, W, 3) uint8 RGB, and returns its mask, (H, W) uint8 object ids.

        Raises:
            DataError: The frame has another size than the first one, or than its given mask.
        """
        return self.predict(frame).mask

    def predict(self, frame: Image, *, last: bool = False) -> Prediction:
        """Goes on to the next frame, as `step` does, and says more of it.

        Args:
            frame: (H, W, 3) uint8 RGB.
            last: Whether no frame follows, so that nothing needs to be memorised.

        Raises:
            DataError: The frame is no such array, or has another size than the first one, or than its given mask.
        """
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            what = f"frame {self._count} has the shape {frame.shape} and the type {frame.dtype}"
            raise DataError(what, "give (H, W, 3) uint8 RGB, with values from 0 to 255")
        size = frame.shape[:2]
        self._size = self._size or size
        if size != self._size:
            raise DataError(f"frame {self._count} has {_pixels(size)} pixels, the first one {_pixels(self._size)}")
        given, ids = self._given or (None, None)
        if given is not None and given.shape != size:
            raise DataError(
                f"the mask of frame {self._count} has {_pixels(given.shape)} pixels, the frame {_pixels(size)}",
                "scale masks to the frames' size with nearest neighbour",
            )
        if given is not None and self.settings.reference == "empty":  # one object, 1, that is nowhere to be seen
            given, ids = np.zeros_like(given), [1]
        self._given = None
        self._count += 1
        image = torch.from_numpy(np.array(frame, order="C")).to(self.device).permute(2, 0, 1).float() / 255
        index = None if given is None else torch.from_numpy(np.array(given, order="C")).to(self.device)
        with torch.inference_mode(), _autocast(self.device, self.settings.precision):
            outputs = [run.step(image, index, ids, last) for run in self._runs]
            return self._prediction(outputs, given, size)

    def _prediction(self, outputs: list[Tensor | None], given: Mask | None, size: tuple[int, ...]) -> Prediction:
        known = [output for output in outputs if output is not None]
        if not known:
            return Prediction(np.zeros(size, np.uint8))
        probabilities = sum(known[1:], known[0]) / len(known)
        lookup = np.array([0, *self.ids], np.uint8)
        mask = lookup[probabilities.argmax(0).cpu().numpy()]
        if given is not None:
            mask = np.where(given > 0, given, mask)
        return Prediction(mask, self.ids, probabilities.cpu().numpy() if self._soft else None)


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


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}" if len(shape) > 1 else str(shape)
