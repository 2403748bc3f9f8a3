"""Which videos are predicted into which folder, and whose predictions are there already.

A folder holds predictions of one origin: the same weights, or rule, and settings. A note in it says which; a marker for
each video says that we made its folder, and from which masks. What does not fit is refused or predicted again, never
mixed, and nothing that others made is replaced.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError, EvaluationError
from ovos_ray.evaluate.infer.directions import Direction
from ovos_ray.evaluate.infer.inference import NetworkPredictor, Predictor
from ovos_ray.io import read_json, write_json
from ovos_ray.paths import MARKER, below, checked_name, note_of, require_disjoint, require_replaceable, write_marker

__all__ = ["KINDS", "VideoJob", "claim", "fingerprint", "plan_jobs"]

KINDS = {".png": "predictions", ".npz": "probabilities", ".mp4": "overlays"}
"""What is made of a video, by the suffix of its files."""
_MARK = ".predictions.json"
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class VideoJob:
    """What is predicted of one video, and where it goes. Picklable.

    Attributes:
        video: The video.
        out: Masks go to `out`/`video.name`.
        soft: Probabilities go to `soft`/`video.name`/FRAME.npz, as uint8 (0 … 255) beside the object ids; or None.
        overlay: A video file of the masks over the frames, or None.
        note: Tells the predictor and the given masks from others.
        redo: Whether to predict again what is there.
        direction: Which way the video is walked, see `directions`.
    """

    video: Video
    out: Path
    soft: Path | None = None
    overlay: Path | None = None
    note: str = ""
    redo: bool = False
    direction: Direction = "forward"

    @property
    def folders(self) -> dict[str, Path]:
        """The video's folders by the suffix of their files.

        Raises:
            DataError: One leads out of its base.
        """
        bases = {".png": self.out} if self.soft is None else {".png": self.out, ".npz": self.soft}
        return {suffix: below(base, self.video.name) for suffix, base in bases.items()}

    def marker(self, suffix: str) -> Path:
        """The file that says that a folder is ours and what it was made from.

        It lies outside of the folder, which holds frames only. An overlay's says where the overlay lies that we made.

        Raises:
            DataError: It would lie outside of the base.
        """
        base = self.soft if suffix == ".npz" and self.soft is not None else self.out
        return below(base, MARKER, KINDS[suffix], f"{self.video.name}.txt")

    def mark_overlay(self) -> None:
        """Notes that the overlay is ours, so that it may be made anew."""
        marker = self.marker(".mp4")
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_marker(marker, KINDS[".mp4"], os.path.realpath(self.overlay or ""))

    def require_own_overlay(self) -> None:
        """Makes sure that no film of the user's has the overlay's name.

        Raises:
            DataError: There is a file that this program did not make.
        """
        if self.overlay is None or self.finished or not os.path.lexists(self.overlay):
            return
        if note_of(self.marker(".mp4"), KINDS[".mp4"]) != os.path.realpath(self.overlay):
            raise DataError(
                f"{self.overlay}: exists, and was not made with the predictions in {self.out}; it is not replaced",
                "give another --overlay, or move this one away",
            )

    @property
    def finished(self) -> bool:
        """Whether everything is there already: made from these masks, and whole."""
        if self.redo or (self.overlay is not None and not self.overlay.is_file()):
            return False
        return all(self._complete(folder, suffix) for suffix, folder in self.folders.items())

    def _complete(self, folder: Path, suffix: str) -> bool:
        if note_of(self.marker(suffix), KINDS[suffix]) != self.note:
            return False
        there = {path.stem: path for path in folder.glob(f"[!.]*{suffix}")}
        if not all(map(_is_whole, there.values())):
            return False
        if self.video.file is not None:
            return bool(there)
        return there.keys() == {name for name in self.video.frame_names if self.video.is_saved(name)}


def _is_whole(path: Path) -> bool:
    """Whether the end of a PNG or NPZ file is there."""
    if path.suffix == ".npz":
        return zipfile.is_zipfile(path)
    with open(path, "rb") as file:
        file.seek(-min(len(_PNG_END), path.stat().st_size), os.SEEK_END)
        return file.read() == _PNG_END


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
    direction: Direction = "forward",
) -> list[VideoJob]:
    """Claims a folder for predictions of one origin, and lists the videos to predict there.

    The arguments and errors are those of `predict_dataset`, and `origin` is the predictor's `fingerprint`.
    """
    names = folder.video_names(split) if videos is None else sorted(videos)
    jobs = [
        VideoJob(
            folder.video(split, name),
            Path(out),
            None if soft is None else Path(soft),
            None if overlay is None else below(overlay, f"{name}.mp4"),
            direction=direction,
        )
        for name in names
    ]
    return claim(Path(out), jobs, origin, overwrite=overwrite)


def claim(out: Path, jobs: Collection[VideoJob], origin: str, *, overwrite: bool = False) -> list[VideoJob]:
    """Notes in a folder by what its predictions are made; refuses one with files of others in the way.

    Args:
        out: The folder.
        jobs: The videos; their `note` and `redo` are set here.
        origin: The predictor's `fingerprint`.
        overwrite: Predict again what is there, also what other weights predicted.

    Returns:
        The jobs, as they are to be done: `both` ways from a first frame is `forward`.

    Raises:
        DataError: A prediction would be written over frames or masks that are read, over another video's, over what
            this program did not make, or outside of its folder.
        EvaluationError: It holds predictions of other weights or settings, and is not to be overwritten.
    """
    note = out / _MARK
    known: dict[str, Any] = read_json(note) if note.is_file() else {"origin": origin}
    if known["origin"] != origin and not overwrite:
        raise EvaluationError(
            f"{out}: holds predictions of other weights or settings", "choose another --out, or remove that folder"
        )
    targets: set[Path] = set()
    for job in jobs:
        sources = list(_sources(job.video))
        checked_name(job.video.name, "video", job.video.location, nested=True)
        for suffix, folder in job.folders.items():
            require_disjoint(folder, sources)
            _adopt(folder, job.marker(suffix), KINDS[suffix], known, job.video.name)
            require_replaceable(folder, KINDS[suffix], marker=job.marker(suffix))
            targets.add(folder)
        if job.overlay is not None:
            require_disjoint(job.overlay, sources, "--overlay")
    if inner := next((path for path in sorted(targets) if not targets.isdisjoint(path.parents)), None):
        raise DataError(f"{inner}: lies in the folder of another video", "rename one of the two videos")
    claimed = [_noted(job, origin, overwrite) for job in jobs]
    for job in claimed:
        job.require_own_overlay()
    write_json(note, {"origin": origin})
    return claimed


def _noted(job: VideoJob, origin: str, redo: bool) -> VideoJob:
    direction: Direction = "forward" if job.direction == "both" and job.video.first_label == 0 else job.direction
    note = f"{origin} {_digest_of_masks(job.video)}" + ("" if direction == "forward" else f" {direction}")
    return replace(job, note=note, redo=redo, direction=direction)


def _sources(video: Video) -> Iterator[Path]:
    """Yields what a video is read from: a file, or the folders of its frames; one mask of each folder of masks."""
    yield from {path.parent for path in video.frames} if video.file is None else (video.file,)
    yield from {path.parent: path for path in video.masks.values()}.values()


def _adopt(folder: Path, marker: Path, kind: str, known: dict[str, Any], name: str) -> None:
    """Marks a folder that version 0.1 made, which noted the masks of all videos in one file."""
    digest = known.get("masks", {}).get(name)
    if digest is not None and folder.is_dir() and note_of(marker, kind) is None:
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_marker(marker, kind, f"{known['origin']} {digest}")


def _digest_of_masks(video: Video) -> str:
    """Tells apart the masks that a prediction starts from, by the bytes of their files."""
    used = [video.first_label] if video.given == "first" else list(video.masks)
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
