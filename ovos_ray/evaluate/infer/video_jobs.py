"""Which videos are predicted into which folder, and whose predictions are there already.

A folder holds predictions of one origin: the same weights, or rule, and settings. A note in it says which, and which
masks each video was given; what does not fit is refused or predicted again, never mixed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.infer.inference import NetworkPredictor, Predictor
from ovos_ray.io import read_json, write_json

__all__ = ["VideoJob", "claim", "fingerprint", "plan_jobs"]

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
    names = folder.video_names(split) if videos is None else sorted(videos)
    jobs = [
        VideoJob(
            folder.video(split, name),
            Path(out),
            None if soft is None else Path(soft),
            None if overlay is None else Path(overlay) / f"{name}.mp4",
        )
        for name in names
    ]
    claim(Path(out), jobs, origin, overwrite=overwrite)
    return jobs


def claim(out: Path, jobs: Collection[VideoJob], origin: str, *, overwrite: bool = False) -> None:
    """Notes in a folder whose predictions it holds, and of which given masks.

    Predictions of a video whose given masks are others by now are removed.

    Raises:
        EvaluationError: It holds predictions of other weights or settings, and is not to be overwritten.
    """
    mark = out / _MARK
    known: dict[str, Any] = read_json(mark) if mark.is_file() else {"origin": origin}
    if known["origin"] != origin and not overwrite:
        raise EvaluationError(
            f"{out}: holds predictions of other weights or settings", "choose another --out, or remove that folder"
        )
    masks: dict[str, str] = known.get("masks", {})
    for job in jobs:
        digest = _digest_of_masks(job.video)
        if overwrite or masks.get(job.video.name, digest) != digest:
            shutil.rmtree(job.out / job.video.name, ignore_errors=True)
        masks[job.video.name] = digest
    write_json(mark, {"origin": origin, "masks": masks})


def _digest_of_masks(video: Video) -> str:
    """Tells apart the masks that a prediction starts from, by the bytes of their files."""
    used = list(video.masks) if video.given == "appearances" else [video.first_label]
    digest = hashlib.sha256()
    for index in used:
        digest.update(f"{index} ".encode() + video.masks[index].read_bytes())
    return digest.hexdigest()[:16]


def fingerprint(predictor: Predictor) -> str:
    """Returns what tells predictions of one origin from others: a digest of weights and settings, or a rule's name."""
    if not isinstance(predictor, NetworkPredictor):
        return str(getattr(predictor, "__qualname__", repr(predictor)))
    digest = hashlib.sha256(repr(predictor.settings).encode())
    for name, tensor in predictor.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
