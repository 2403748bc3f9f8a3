"""Predictions of whole datasets, on disk in DAVIS results layout: OUT/VIDEO/FRAME.png.

A video's folder appears under its name when all of it is written, so what is there is complete: a second run skips it,
and redoes what a killed one left behind. Frames are read ahead and masks are written behind by threads.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovos_ray.data.dataset_folder import DatasetFolder
from ovos_ray.data.masks import encode_mask, read_palette
from ovos_ray.data.video import Video
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.background import ReadAhead, WholeFolder
from ovos_ray.evaluate.inference import InferenceSettings, NetworkPredictor, Prediction, Predictor
from ovos_ray.evaluate.overlay import OverlayWriter
from ovos_ray.io import read_json, write_json
from ovos_ray.networks.base import VOSNetwork

__all__ = ["VideoJob", "VideoReport", "fingerprint", "plan_jobs", "predict_dataset", "predict_one"]

_MARK = ".predictions.json"


@dataclass(frozen=True)
class VideoJob:
    """What is predicted of one video, and where it goes. Picklable.

    Attributes:
        video: The video.
        out: Masks go to `out`/`video.name`.
        soft: Probabilities go to `soft`/`video.name`/FRAME.npz, as uint8 (0 … 255) beside the object ids; or None.
        overlay: A video file of the masks over the frames, or None.
    """

    video: Video
    out: Path
    soft: Path | None = None
    overlay: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether everything is there already."""
        if self.overlay is not None and not self.overlay.is_file():
            return False
        folders = [(self.out, ".png")] + ([(self.soft, ".npz")] if self.soft is not None else [])
        return all(self._complete(folder / self.video.name, suffix) for folder, suffix in folders)

    def _complete(self, folder: Path, suffix: str) -> bool:
        there = {path.stem for path in folder.glob(f"*{suffix}")}
        if self.video.file is not None:
            return bool(there)
        return there == {name for name in self.video.frame_names if self.video.is_saved(name)}


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
    """Predicts a split, one video after the other.

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
        DataError: A video cannot be read, or has no usable mask.
        EvaluationError: `out` holds predictions of other weights or settings.
    """
    if isinstance(predictor, VOSNetwork):
        predictor = NetworkPredictor(predictor, settings or InferenceSettings.of(predictor))
    if isinstance(predictor, NetworkPredictor):
        predictor = replace(predictor, soft=soft is not None)
    jobs = plan_jobs(
        folder, split, out, fingerprint(predictor), videos=videos, soft=soft, overlay=overlay, overwrite=overwrite
    )
    reports = []
    for job in jobs:
        reports.append(predict_one(predictor, job))
        if progress is not None:
            progress(reports[-1])
    return reports


def plan_jobs(
    folder: DatasetFolder,
    split: str,
    out: str | os.PathLike[str],
    origin: str,
    *,
    videos: Collection[str] | None = None,
    soft: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> list[VideoJob]:
    """Claims a folder for predictions of one origin, and lists the videos to predict there.

    The arguments are those of `predict_dataset`, and `origin` is the predictor's `fingerprint`.
    """
    out = Path(out)
    mark = out / _MARK
    if mark.is_file() and read_json(mark)["origin"] != origin:
        if not overwrite:
            raise EvaluationError(
                f"{out}: holds predictions of other weights or settings",
                "choose another --out, or remove that folder",
            )
        mark.unlink()
    names = folder.video_names(split) if videos is None else sorted(videos)
    jobs = [
        VideoJob(
            folder.video(split, name),
            out,
            None if soft is None else Path(soft),
            None if overlay is None else Path(overlay) / f"{name}.mp4",
        )
        for name in names
    ]
    if overwrite:
        for job in jobs:
            shutil.rmtree(job.out / job.video.name, ignore_errors=True)
    write_json(mark, {"origin": origin})
    return jobs


def fingerprint(predictor: Predictor) -> str:
    """Returns what tells predictions of one origin from others: a digest of weights and settings, or a rule's name."""
    if not isinstance(predictor, NetworkPredictor):
        return str(getattr(predictor, "__qualname__", repr(predictor)))
    digest = hashlib.sha256(repr(predictor.settings).encode())
    for name, tensor in predictor.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def predict_one(predictor: Predictor, job: VideoJob) -> VideoReport:
    """Predicts one video, unless it is finished.

    Raises:
        DataError: The video cannot be read, or has no usable mask.
    """
    if job.finished:
        return VideoReport(job.video.name, 0, 0.0, skipped=True)
    start = time.perf_counter()
    references = job.video.references()
    palette = read_palette(job.video.masks[next(iter(references))])
    names = iter(job.video.frame_names) if job.video.file is None else (f"{t:05d}" for t in itertools.count())
    count = 0
    with ExitStack() as stack:
        masks = stack.enter_context(WholeFolder(job.out / job.video.name))
        soft = None if job.soft is None else stack.enter_context(WholeFolder(job.soft / job.video.name))
        video = None if job.overlay is None else stack.enter_context(_Overlay(job.overlay))
        frames: deque[npt.NDArray[np.uint8]] = deque()
        images = stack.enter_context(ReadAhead(job.video.images()))
        for name, prediction in zip(names, predictor(_kept(images, frames), references), strict=False):
            image = frames.popleft()
            count += 1
            if job.video.is_saved(name):
                masks.write(f"{name}.png", encode_mask, prediction.mask, palette)
                if soft is not None:
                    soft.write(f"{name}.npz", _encode_soft, prediction)
            if video is not None:
                video.write(image, prediction.mask, palette)
    return VideoReport(job.video.name, count, time.perf_counter() - start)


class _Overlay(OverlayWriter):
    """An overlay video that is thrown away if the block fails."""

    def __enter__(self) -> _Overlay:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(keep=kind is None)


def _kept(images: Iterable[Any], frames: deque[Any]) -> Iterator[Any]:
    for image in images:
        frames.append(image)
        yield image


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
