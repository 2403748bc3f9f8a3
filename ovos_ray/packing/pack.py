"""A dataset folder becomes shards: every file is checked on the way in, and the result is whole or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.video import Video
from ovos_ray.data.shards.index import INDEX_NAME, LabelBudget, ShardIndex, content_digest
from ovos_ray.errors import DataError
from ovos_ray.io import restore_folder, whole_folder
from ovos_ray.packing.label_choice import LabelFrame, Labels, check_choice, kind_of, named_videos
from ovos_ray.packing.prepare import by_video, frames_of, map_in_order, prepare
from ovos_ray.packing.writer import ShardWriter
from ovos_ray.storage import Storage

__all__ = ["LabelFrame", "Labels", "Progress", "pack"]

Progress: TypeAlias = Callable[[int, int], None]

_KIND = "shards"
_UNMARKED = (INDEX_NAME, "frames-*.parquet")  # what shards of version 0.1 are known by
_ROWS_PER_GROUP = 4
_SHARD_BYTES = 256 * 2**20
_SHOWN_PROBLEMS = 10


def pack(
    source: DatasetFolder,
    out: str | Path,
    *,
    labels: Labels = "first",
    split: str = "train",
    shortest_side: int | None = None,
    label_frame: LabelFrame = "first",
    exclude: Collection[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    num_threads: int | None = None,
    rows_per_group: int = _ROWS_PER_GROUP,
    shard_bytes: int = _SHARD_BYTES,
) -> ShardIndex:
    """Writes a split of a dataset as shards.

    Every frame is decoded once, so damage is found here and not in training. All problems are collected before the
    error is raised. The folder appears under its name when it is complete; packing the same files with the same
    options again returns at once.

    Args:
        source: The dataset.
        out: The shard folder to make.
        labels: `first` stores one label per video and no other annotation bytes, `all` every label there is, a number
            as many for each video, spread evenly; or the indices of the labelled frames, for all videos or by name (the
            rest then has the first).
        split: Which split.
        shortest_side: Frames whose shorter side is longer than this are scaled down to it (image bicubic, label
            nearest neighbour) and stored as JPEG of quality 95. None keeps JPEG files byte for byte.
        label_frame: With `labels="first"`: `first` frame whose mask shows an object, or the index of the labelled
            frame, for all videos or by name (the rest then has the first).
        exclude: Videos to leave out besides those of the dataset's description.
        overwrite: Replace a shard folder that is there.
        progress: Called as (videos done, videos in all).
        num_threads: Threads that read, check and encode; None: one per CPU, eight at most.
        rows_per_group: Frames per row group: fewer make reads finer and footers larger.
        shard_bytes: A file is closed after the video that makes it larger than this.

    Raises:
        DataError: The source cannot be used as it is, or `out` is there and holds something else.
        ConfigError: The options contradict one another.
    """
    out = Path(out).expanduser().absolute()
    labels = check_choice(labels, label_frame)
    split = source.resolve(split)
    names = _select(source, split, exclude, named_videos(labels, label_frame))
    videos, problems = _open_all(source, split, names)
    _raise(problems, source)
    options = [source.description.name, split, labels, shortest_side, str(label_frame), rows_per_group, shard_bytes]
    source_digest = _source_digest(videos, options)
    restore_folder(out.resolve(), _KIND, *_UNMARKED)
    if not overwrite and (done := _already_packed(out, source_digest)) is not None:
        return done

    frames = frames_of(videos, labels, label_frame, shortest_side)
    threads = num_threads or min(8, os.cpu_count() or 1)
    try:
        with whole_folder(out, _KIND, *_UNMARKED) as folder, ThreadPoolExecutor(threads) as pool:
            writer = ShardWriter(folder, source.description.name, rows_per_group, shard_bytes)
            for position, (video, rows) in enumerate(by_video(map_in_order(pool, prepare, frames, 4 * threads))):
                problems += writer.add(video, rows, one_frame_allowed=source.of_images)
                if progress is not None:
                    progress(position + 1, len(videos))
            writer.close()
            _raise(problems, source)
            index = ShardIndex(
                dataset=source.description.name,
                layout=source.description.layout,
                split=split,
                labels=kind_of(labels),
                frame_interval=source.frame_interval(split),
                shortest_side=shortest_side,
                num_reencoded=writer.num_reencoded,
                budget=LabelBudget(
                    sum(len(video.label_frames) for video in writer.videos),
                    sum(video.num_frames for video in writer.videos),
                ),
                digest=content_digest(writer.checksums),
                source_digest=source_digest,
                rows_per_group=rows_per_group,
                files=tuple(writer.files),
                videos=tuple(writer.videos),
                root=str(Path(source.root).absolute()),
            )
            index.check()
            index.save(Storage(str(folder)))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error})", "free space there, or give another --out") from error
    return index


def _raise(problems: list[str], source: DatasetFolder) -> None:
    if problems:
        more = f"\n  … and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        listed = "\n  ".join(problems[:_SHOWN_PROBLEMS])
        raise DataError(
            f"{source.root}: {len(problems)} problem(s), nothing was written\n  {listed}{more}",
            "repair the files named, or leave their videos out (--exclude VIDEO)",
        )


def _select(source: DatasetFolder, split: str, exclude: Collection[str], named: set[str]) -> list[str]:
    names = source.video_names(split)
    if unknown := sorted({*exclude, *named} - set(names)):
        raise DataError(f"{source.root}: no video {unknown[0]!r} in split {split!r}, though an option names it")
    kept = [name for name in names if name not in set(exclude)]
    if not kept:
        raise DataError(f"{source.root}: every video of split {split!r} is excluded")
    return kept


def _open_all(source: DatasetFolder, split: str, names: list[str]) -> tuple[list[Video], list[str]]:
    videos, problems = [], []
    for name in names:
        try:
            videos.append(source.video(split, name))
        except DataError as error:
            problems.append(error.listed)
    return videos, problems


def _source_digest(videos: list[Video], options: list[Any]) -> str:
    state = hashlib.blake2b(repr(options).encode(), digest_size=8)
    for video in videos:
        state.update(f"\n{video.name}".encode())
        for path in (*video.frames, *([video.file] if video.file else []), *video.masks.values()):
            stat = path.stat()
            state.update(f"\n{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return state.hexdigest()


def _already_packed(out: Path, source_digest: str) -> ShardIndex | None:
    """The index of `out` if it holds just this; None if there is nothing yet."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / INDEX_NAME).is_file():
        raise DataError(f"{out}: exists and holds no shards", "give another folder with --out")
    index = ShardIndex.load(out)
    if index.source_digest == source_digest and all((out / file.name).is_file() for file in index.files):
        return index
    raise DataError(
        f"{out}: holds other shards ({index.dataset} {index.split}, labels {index.labels}, "
        f"{len(index.videos)} videos), or their source has changed",
        "give another folder with --out, or replace it with --overwrite",
    )
