"""Inference: one forward propagation over a whole video, streaming.

Frames come in one at a time and masks go out one at a time; what is kept between them is bounded. Whatever predicts
masks (a network here, the rules of `baselines.py`) is a `Predictor`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ovos_ray.evaluate.infer.graphed import GraphedNetwork
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.evaluate.infer.tracker import Image, Mask, Prediction, Tracker
from ovos_ray.networks.base import VOSNetwork

__all__ = ["Image", "InferenceSettings", "Mask", "NetworkPredictor", "Prediction", "Predictor", "predict_video"]

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
        on_gpu = next(self.network.parameters()).device.type == "cuda"
        tracker = Tracker(self._graphed if on_gpu else self.network, self.settings, soft=self.soft)
        for t, (frame, last) in enumerate(_with_last(frames)):
            if t in masks:
                tracker.add(masks[t])
            yield tracker.predict(frame, last=last)

    @functools.cached_property
    def _graphed(self) -> GraphedNetwork:
        return GraphedNetwork(self.network)


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
