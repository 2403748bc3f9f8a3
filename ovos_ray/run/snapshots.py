"""Masks of a few frames, kept while a network learns: how they emerge, and whether they only copy (Figures 6 and 7).

RUN/snapshots/step-00000500/VIDEO/FRAME.png         what the network predicts after 500 steps
RUN/snapshots/step-00000500/VIDEO/again/FRAME.png   with an empty reference: once more, from its own prediction
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ovos_ray.arrays import UInt8Array
from ovos_ray.config import ExperimentConfig
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import DAVIS_PALETTE, encode_mask
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor
from ovos_ray.evaluate.infer.overlay import grid, tile
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.storage import Storage

__all__ = ["keep_snapshot", "snapshot_videos"]

_VIDEOS, _FRAMES, _WINDOW = 2, 5, 25
"""Of the first two videos, or those asked for, five frames spread over the first 25."""
_TILE_WIDTH = 240


def snapshot_videos(config: ExperimentConfig) -> list[Video]:
    """Returns the videos to take pictures of: of the selection split, of the reported one, or none without either.

    Raises:
        DataError: The dataset cannot be opened.
        ConfigError: It has no video of a name in `train.snapshot_videos`.
    """
    for part in (config.validation, config.evaluation):
        if part.source is not None:
            folder = open_dataset(part.source, layout=part.layout)
            names = folder.video_names(part.split)
            wanted = config.train.snapshot_videos
            if unknown := [name for name in wanted if name not in names]:
                raise ConfigError(
                    f"train.snapshot_videos: {part.split} of {part.source} has no {', '.join(unknown)}",
                    f"choose from {', '.join(names[:8])}{', …' if len(names) > 8 else ''}",
                )
            return [folder.video(part.split, name) for name in wanted or names[:_VIDEOS]]
    return []


def keep_snapshot(network: VOSNetwork, config: ExperimentConfig, step: int, out: Storage) -> dict[str, bytes]:
    """Predicts the beginning of two videos and keeps some of the masks.

    The reference is what the run trains with: the given mask, or none (`method.reference=empty`). Without one the last
    prediction is also fed back: it is the reference of a walk back to the first frame, and what arrives there that of
    the way forward again (paper section 4.4).

    Args:
        network: On its device; its training mode is restored, and no random number is drawn.
        config: Of the run.
        step: Optimiser steps done.
        out: Folder of the snapshots.

    Returns:
        By video, the masks over their frames, side by side, as JPEG.

    Raises:
        DataError: A video cannot be read.
        OSError: The storage cannot be written.
    """
    training = network.training
    settings = InferenceSettings.of(network, reference="empty" if config.method.reference == "empty" else "given")
    strips = {}
    try:
        for video in snapshot_videos(config):
            start = video.first_label
            frames = list(itertools.islice(video.images(), start, start + _WINDOW))
            names = video.frame_names[start : start + len(frames)]
            kept = sorted({round(i * (len(frames) - 1) / (_FRAMES - 1)) for i in range(_FRAMES)})
            masks = _masks(NetworkPredictor(network, settings), frames, video.mask(start))
            folder = f"step-{step:08d}", video.name
            for index in kept:
                out.write(encode_mask(masks[index], DAVIS_PALETTE), *folder, f"{names[index]}.png")
            if settings.reference == "empty":
                again = list(_fed_back(network, frames, masks[-1]))
                for index in kept:
                    out.write(encode_mask(again[index], DAVIS_PALETTE), *folder, "again", f"{names[index]}.png")
            strips[video.name] = grid([[tile(frames[i], masks[i], _TILE_WIDTH) for i in kept]], "JPEG")
    finally:
        network.train(training)
    return strips


def _fed_back(network: VOSNetwork, frames: Sequence[UInt8Array], last: UInt8Array) -> Iterator[UInt8Array]:
    """Walks back from a predicted last mask, then forward from what arrived; yields the masks of the way forward."""
    predictor = NetworkPredictor(network, InferenceSettings.of(network))
    first = _masks(predictor, frames[::-1], last)[-1]
    yield from _masks(predictor, frames, first)


def _masks(predictor: NetworkPredictor, frames: Sequence[UInt8Array], reference: UInt8Array) -> list[UInt8Array]:
    return [prediction.mask for prediction in predictor(frames, {0: reference})]
