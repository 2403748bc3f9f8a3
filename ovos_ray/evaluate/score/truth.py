"""The true masks of a split as files `VIDEO/FRAME.png`, whatever its layout keeps them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import encode_mask, image_size
from ovos_ray.data.shards.shard_folder import ShardFolder
from ovos_ray.errors import DataError, EvaluationError
from ovos_ray.evaluate.score.pairs import masks_root
from ovos_ray.evaluate.score.table import Protocol
from ovos_ray.paths import below

__all__ = ["require_truth", "truth_of"]

_MAX_NAMED = 5


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


def require_truth(
    folder: DatasetFolder, split: str, protocol: Protocol | None = None, num_videos: int | None = None
) -> None:
    """Refuses before a training what could not be scored after it: one such video is enough to lose the score of all.

    Args:
        folder: The dataset.
        split: Its split.
        protocol: How it is scored.
        num_videos: Only the first so many videos.

    Raises:
        DataError: Videos lack masks that no benchmark's server keeps either; they are named, with what each lacks.
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
    names = folder.video_names(split)[:num_videos]
    lacking = {name: what for name in names if (what := _lacking(folder, split, name, fewest))}
    if lacking:
        some = [f"{name}: {what}" for name, what in list(lacking.items())[:_MAX_NAMED]]
        some += [f"and {len(lacking) - _MAX_NAMED} more"] if len(lacking) > _MAX_NAMED else []
        raise DataError(
            f"{folder.place}: {len(lacking)} of {len(names)} videos of {split} cannot be scored ({'; '.join(some)})",
            f"a video needs masks of {fewest} frames, since the given one is not scored: add them (where they go: "
            f"{folder.expected}), or score another split without these videos",
        )


def _lacking(folder: DatasetFolder, split: str, name: str, fewest: int) -> str:
    """Returns what keeps a video from being scored, from names and headers of files; empty if nothing does."""
    try:
        video = folder.video(split, name)
        if len(video.masks) < fewest:
            return f"{len(video.masks)} mask" + ("" if len(video.masks) == 1 else "s")
        for index, path in video.masks.items() if video.drawn is None else ():
            size, frame = image_size(path), video.size if video.file else image_size(video.frames[index])
            if size != frame:
                return f"{path.name} has {size[1]} x {size[0]} pixels, its frame {frame[1]} x {frame[0]}"
    except DataError as error:
        return error.message
    return ""
