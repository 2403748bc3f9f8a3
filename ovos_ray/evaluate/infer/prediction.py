"""Predictions of whole datasets, on disk in DAVIS results layout: OUT/VIDEO/FRAME.png.

A video's folder appears under its name when all of it is written, so what is there is complete: a second run skips it,
and redoes what a killed one left behind. Frames are read ahead and masks are written behind by threads.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.masks import DAVIS_PALETTE, encode_mask, read_palette
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.infer.background import written_behind
from ovos_ray.evaluate.infer.directions import FrameStack, walk
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor, Prediction, Predictor
from ovos_ray.evaluate.infer.overlay import OverlayWriter
from ovos_ray.evaluate.infer.overlay import overlay as draw
from ovos_ray.evaluate.infer.video_jobs import KINDS, VideoJob, fingerprint, plan_jobs
from ovos_ray.networks.base import VOSNetwork

__all__ = ["VideoReport", "predict_dataset", "predict_one"]


@dataclass(frozen=True)
class VideoReport:
    """What predicting a video took."""

    name: str
    num_frames: int
    seconds: float
    skipped: bool = False


def predict_dataset(
    predictor: VOSNetwork | Predictor,
    folder: DatasetFolder,
    split: str,
    out: str | os.PathLike[str],
    *,
    videos: Collection[str] | None = None,
    settings: InferenceSettings | None = None,
    soft: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[VideoReport], None] | None = None,
) -> list[VideoReport]:
    """Predicts a split, one video after the other, from its first masks forward.

    Args:
        predictor: A network, or anything that predicts, such as a baseline.
        folder: The dataset.
        split: Its split.
        out: Folder of the masks.
        videos: Names of the videos; None: all of the split.
        settings: Of a network; None: the published ones.
        soft: Folder of the probabilities (networks only).
        overlay: Folder of videos that show the masks over the frames.
        overwrite: Predict again what is there.
        progress: Called when a video is done.

    Raises:
        DataError: A video cannot be read, has no usable mask, or its prediction would be written over what is read or
            what this program did not make.
        EvaluationError: `out` holds predictions of other weights or settings.
    """
    if isinstance(predictor, VOSNetwork):
        predictor = NetworkPredictor(predictor, settings or InferenceSettings.of(predictor))
    if isinstance(predictor, NetworkPredictor):
        predictor = replace(predictor, soft=soft is not None)
    origin = fingerprint(predictor)
    jobs = plan_jobs(folder, split, out, origin, videos=videos, soft=soft, overlay=overlay, overwrite=overwrite)
    reports = []
    for job in jobs:
        reports.append(predict_one(predictor, job))
        if progress is not None:
            progress(reports[-1])
    return reports


def predict_one(predictor: Predictor, job: VideoJob, on_frame: Callable[[], object] | None = None) -> VideoReport:
    """Predicts one video, unless it is finished; `on_frame` is called after each frame.

    Raises:
        DataError: The video cannot be read, or has no usable mask.
    """
    if job.finished:
        return VideoReport(job.video.name, 0, 0.0, skipped=True)
    start = time.perf_counter()
    references = job.video.references()
    painted = job.video.drawn is not None
    palette = DAVIS_PALETTE if painted else read_palette(job.video.masks[next(iter(references))])
    count = 0
    with ExitStack() as stack:
        write = {
            suffix: stack.enter_context(written_behind(folder, KINDS[suffix], job.marker(suffix), job.note))
            for suffix, folder in job.folders.items()
        }
        video = None if job.overlay is None else stack.enter_context(_Overlay(job, job.overlay))
        for t, image, prediction in walk(predictor, job.video, references, job.direction, job.out):
            name = job.video.frames[t].stem if job.video.file is None else f"{t:05d}"
            count += 1
            if job.video.is_saved(name):
                write[".png"](f"{name}.png", encode_mask, prediction.mask, palette)
                if ".npz" in write:
                    write[".npz"](f"{name}.npz", _encode_soft, prediction)
            if video is not None:
                video.put(t, draw(image, prediction.mask, palette))
            if on_frame is not None:
                on_frame()
    return VideoReport(job.video.name, count, time.perf_counter() - start)


class _Overlay(OverlayWriter):
    """An overlay video that is thrown away if the block fails."""

    def __init__(self, job: VideoJob, path: Path) -> None:
        super().__init__(path)
        self._job = job
        self._count = 0
        self._early = FrameStack(path.parent)

    def put(self, t: int, picture: UInt8Array) -> None:
        """Adds the picture of frame t. Those that come in reverse are held back until frame 0 is there."""
        if t != self._count:
            self._early.append(picture)
            return
        self.add(picture)
        for place in reversed(range(len(self._early))):
            self.add(self._early[place])
        self._count += 1 + len(self._early)
        self._early.clear()

    def __enter__(self) -> _Overlay:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._early.close()
        if kind is None:
            self._job.mark_overlay()  # before it appears: a kill in between leaves nothing that is not known as ours
        self.close(keep=kind is None)


def _encode_soft(prediction: Prediction) -> bytes:
    probabilities = prediction.probabilities
    if probabilities is None:
        if prediction.ids:
            raise EvaluationError("soft masks were asked of a predictor that has none", "leave them out for baselines")
        probabilities = np.ones((1, *prediction.mask.shape), np.float32)  # before the first object: background
    buffer = io.BytesIO()
    quantised = np.round(255 * probabilities).astype(np.uint8)
    np.savez_compressed(buffer, probabilities=quantised, ids=np.array(prediction.ids, np.int64))
    return buffer.getvalue()
