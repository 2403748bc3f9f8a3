"""The true masks of a split as files `VIDEO/FRAME.png`, whatever its layout keeps them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import encode_mask
from ovos_ray.data.shards.shard_folder import ShardFolder
from ovos_ray.errors import DataError, EvaluationError
from ovos_ray.evaluate.score.pairs import masks_root
from ovos_ray.evaluate.score.table import Protocol
from ovos_ray.paths import below

__all__ = ["require_truth", "truth_of"]


def truth_of(folder: DatasetFolder, split: str, names: Sequence[str], scratch: Path) -> Path:
    """Returns what to score videos against.

    Args:
        folder: The dataset.
        split: Its split.
        names: The videos.
        scratch: An empty folder for copies.

    Returns:
        The dataset's own folder, where the masks lie in it as files of object ids. Otherwise (one JSON file for all,
        painted colours, masks beside the frames) `scratch`, with a copy of each.

    Raises:
        EvaluationError: A mask cannot be read.
    """
    videos = [folder.video(split, name) for name in names]
    if not any(video.masks for video in videos) or all(_lies_below(folder.root, video) for video in videos):
        return folder.root
    for video in videos:
        try:
            _copy_masks(video, scratch)
        except DataError as error:  # a score that cannot be had is no reason to lose what was trained
            raise EvaluationError(error.message, error.remedy) from error
    return scratch


def _copy_masks(video: Video, to: Path) -> None:
    for index in video.masks:
        path = below(to, video.name, f"{video.frame_names[index]}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_mask(video.mask(index)))


def _lies_below(root: Path, video: Video) -> bool:
    """Whether the masks are files that are found by their names alone."""
    try:
        base = masks_root(root)
    except EvaluationError:
        return False
    return video.drawn is None and all(
        path == base / video.name / f"{video.frame_names[index]}.png" for index, path in video.masks.items()
    )


def require_truth(folder: DatasetFolder, split: str, protocol: Protocol | None = None) -> None:
    """Refuses before a training what could not be scored after it.

    Raises:
        DataError: No video has enough masks, and they are not kept by a benchmark's server either.
    """
    if isinstance(folder, ShardFolder):
        if folder.index.labels == "first":
            raise DataError(
                f"{folder.location}: packed with one label a video, which leaves nothing to score against",
                f"pack the split anew: ovos-ray pack {folder.index.dataset} --split {split} --labels all --out SHARDS",
            )
        return
    if folder.kept_by_server:
        return
    fewest = 2 if protocol == "youtube-vos" else 3  # DAVIS scores neither the first nor the last
    if any(len(folder.video(split, name).masks) >= fewest for name in folder.video_names(split)):
        return
    raise DataError(
        f"{folder.place}: no video of {split} has {fewest} masks, and the given one is not scored",
        f"add masks of more frames (where they go: {folder.expected}), or score another split",
    )
