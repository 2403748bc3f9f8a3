"""A dataset folder becomes shards: every file is checked on the way in, and the result is whole or absent.

The parts of a dataset, one shard file each, are made beside the folder that is to be, or in its bucket; finished ones
outlive a kill. When all are there the index is made from their records, and the folder appears; a bucket's is a folder
of shards from the moment on when it has an index, which is written last.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import pickle
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.shards.index import INDEX_NAME, LabelBudget, ShardFile, ShardIndex, content_digest
from ovos_ray.data.shards.video_table import VideoTable
from ovos_ray.errors import DataError, StorageError
from ovos_ray.io import restore_folder, whole_folder
from ovos_ray.lease import Lease
from ovos_ray.packing.label_choice import LabelFrame, Labels, check_choice, kind_of, named_videos
from ovos_ray.packing.parts import RECORDS, Options, Part, Runner, in_processes, make_part, read_record
from ovos_ray.packing.place import OURS, beside, files_in, place_of, workplace
from ovos_ray.paths import require_replaceable
from ovos_ray.storage import Storage

__all__ = ["LabelFrame", "Labels", "Progress", "pack"]

Progress: TypeAlias = Callable[[int, int], None]
_Group: TypeAlias = tuple[tuple[str, ...], str]
"""The videos of a part, and a digest of their files."""

_KIND = "shards"
_UNMARKED = (INDEX_NAME, "frames-*.parquet")  # what shards of version 0.1 are known by
_ROWS_PER_GROUP = 4
_SHARD_BYTES = 256 * 2**20
_VIDEO_FILE_FACTOR = 20  # what a video file grows to as JPEGs, about
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
    num_workers: int = 1,
    runner: Runner | None = None,
    num_threads: int | None = None,
    rows_per_group: int = _ROWS_PER_GROUP,
    shard_bytes: int = _SHARD_BYTES,
) -> ShardIndex:
    """Writes a split of a dataset as shards.

    Every frame is decoded once, so damage is found here and not in training. All problems are collected before the
    error is raised. The folder appears under its name when it is complete; packing the same files with the same
    options again returns at once. After a kill, or when what was wrong is mended, the same call keeps the shard files
    that were finished, after a look at their bytes. Processes and their number change nothing of what is written.

    Args:
        source: The dataset.
        out: The shard folder to make: a path, or a bucket URI such as `s3://bucket/shards/davis`.
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
        num_workers: Processes that make shard files; 1: this one.
        runner: Makes the files in another way than processes here, such as `on_ray.packing.on_cluster`.
        num_threads: Threads of a process that read, check and encode; None: one per CPU, eight at most.
        rows_per_group: Frames per row group: fewer make reads finer and footers larger.
        shard_bytes: A file is closed after the video whose source files make it larger than this.

    Raises:
        DataError: The source cannot be used as it is, or `out` is there and holds something else.
        ConfigError: The options contradict one another.
        HeldError: Another process has taken the bucket's folder over.
        ResourceError: A process died.
        StorageError: The bucket cannot be reached.
    """
    labels = check_choice(labels, label_frame)
    split = source.resolve(split)
    names = _select(source, split, exclude, named_videos(labels, label_frame))
    stated = [source.description.name, split, labels, shortest_side, str(label_frame), rows_per_group, shard_bytes]
    stated += [str(sorted(colours.items()))] if (colours := source.description.colours) else []
    groups, source_digest = _grouped(source, split, names, stated, shard_bytes)
    final = place_of(out)
    if (done := _room_for(final, source_digest, overwrite=overwrite)) is not None:
        return done

    options = Options(split, labels, label_frame, shortest_side, rows_per_group)
    threads = num_threads or max(1, min(8, (os.cpu_count() or 1) // num_workers))
    if runner is None and num_workers > 1:
        runner = partial(in_processes, num_workers=num_workers)
    try:
        with workplace(final) as (place, lease):
            if not place.local and (done := _room_for(final, source_digest, overwrite=overwrite)) is not None:
                return done  # made by whom this one waited for
            parts = _parts(source, groups, options, place, threads)
            _raise(_made(parts, runner, len(names), progress, lease), source)
            _publish(_index(parts, source, options, source_digest, place), place, final, lease)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error})", "free space there, or give another --out") from error
    return ShardIndex.load(final.folder)


def _room_for(final: Storage, source_digest: str, *, overwrite: bool) -> ShardIndex | None:
    """Makes sure that shards may be written there; returns their index if the very same are there already.

    Raises:
        DataError: Something else lies there, or other shards that are not to be replaced.
    """
    if not final.local:
        if not overwrite and (done := _already_packed(final, source_digest)) is not None:
            return done
        if INDEX_NAME in (there := files_in(final)) and not fnmatch.filter(there, "frames-*.parquet"):
            raise DataError(f"{final.folder}: its {INDEX_NAME} is not one of shards", "give another --out")
        return None
    target = Path(final.root).resolve()
    restore_folder(target, _KIND, *_UNMARKED)
    if not overwrite and (done := _already_packed(final, source_digest)) is not None:
        if beside(final).exists():
            with suppress(DataError, OSError), workplace(final):
                pass  # what a killed process has left is cleared
        return done
    require_replaceable(target, _KIND, *_UNMARKED)
    return None


def _parts(
    source: DatasetFolder, groups: Sequence[_Group], options: Options, place: Storage, num_threads: int
) -> list[Part]:
    pickled = pickle.dumps((source, uuid.uuid4().hex))  # another pack may find another listing
    parts = []
    for number, (videos, digest) in enumerate(groups):
        # A bucket's old index stays good until the new one is there: no file takes another's name.
        suffix = "" if place.local else f"-{digest[:8]}"
        file = f"frames-{number:05d}{suffix}.parquet"
        parts.append(Part(number, file, pickled, options, videos, digest, place.folder, num_threads))
    return parts


def _index(
    parts: list[Part], source: DatasetFolder, options: Options, source_digest: str, place: Storage
) -> ShardIndex:
    """The index of finished parts, made from their records."""
    tables, files, checksums, num_reencoded = [], [], [], 0
    for part in parts:
        record = read_record(part)
        if record is None:
            raise DataError(f"{place.location(part.file)}: changed while it was packed", "pack the dataset again")
        files.append(ShardFile(part.file, record.num_rows))
        checksums.append("\n".join(record.checksums))
        num_reencoded += record.num_reencoded
        tables.append(VideoTable.of(record.videos, ()))
    videos = VideoTable.concat(tables, files)
    index = ShardIndex(
        dataset=source.description.name,
        layout=source.description.layout,
        split=options.split,
        labels=kind_of(options.labels),
        frame_interval=source.frame_interval(options.split),
        shortest_side=options.shortest_side,
        num_reencoded=num_reencoded,
        budget=LabelBudget(*videos.count_frames()),
        digest=content_digest(checksums),
        source_digest=source_digest,
        rows_per_group=options.rows_per_group,
        files=tuple(files),
        videos=videos,
        root=str(Path(source.root).absolute()),
    )
    index.check()
    return index


def _publish(index: ShardIndex, place: Storage, final: Storage, lease: Lease) -> None:
    """Lets the shards appear as a whole."""
    if final.local:
        with whole_folder(final.root, _KIND, *_UNMARKED) as folder:
            for file in index.files:
                os.rename(place.path(file.name), folder / file.name)
            index.save(Storage(str(folder)))
        return
    lease.look()
    index.save(final)
    lease.look()  # what is removed must not be what another one has just written
    final.remove_folder(RECORDS)
    for name in files_in(final) - {INDEX_NAME, index.table_name, *(file.name for file in index.files)}:
        if OURS.fullmatch(name):
            final.remove(name)


def _made(
    parts: Sequence[Part], runner: Runner | None, total: int, progress: Progress | None, lease: Lease
) -> list[str]:
    """Makes all parts; returns what is wrong, in the order of the videos."""
    done, problems = 0, dict[int, list[str]]()

    def tell(count: int = 1) -> None:
        nonlocal done
        lease.check()
        done += count
        if progress is not None:
            progress(done, total)

    if runner is None:
        for part in parts:
            before = done
            problems[part.number] = make_part(part, tell)
            if done == before:  # it was kept
                tell(len(part.videos))
    else:
        for part, found in runner(parts):
            problems[part.number] = found
            tell(len(part.videos))
    return [problem for number in sorted(problems) for problem in problems[number]]


def _raise(problems: list[str], source: DatasetFolder) -> None:
    if problems:
        more = f"\n  … and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        listed = "\n  ".join(problems[:_SHOWN_PROBLEMS])
        raise DataError(
            f"{source.root}: {len(problems)} problem(s), no shards were made\n  {listed}{more}",
            "repair the files named, or leave their videos out (--exclude VIDEO); shard files without them are kept",
        )


def _select(source: DatasetFolder, split: str, exclude: Collection[str], named: set[str]) -> list[str]:
    names = source.video_names(split)
    if unknown := sorted({*exclude, *named} - set(names)):
        raise DataError(f"{source.root}: no video {unknown[0]!r} in split {split!r}, though an option names it")
    kept = [name for name in names if name not in set(exclude)]
    if not kept:
        raise DataError(f"{source.root}: every video of split {split!r} is excluded")
    return kept


def _grouped(
    source: DatasetFolder, split: str, names: list[str], options: list[Any], shard_bytes: int
) -> tuple[list[_Group], str]:
    """Returns the videos of each part with a digest of its files, and the digest of all."""
    groups: list[_Group] = []
    problems: list[str] = []
    own: list[str] = []
    num_bytes = 0
    part, whole = (hashlib.blake2b(repr(options).encode(), digest_size=8) for _ in range(2))
    for name in names:
        try:
            video = source.video(split, name)
        except DataError as error:
            problems.append(error.listed)
            continue
        text = f"\n{name}"
        for path in (*video.frames, *([video.file] if video.file else []), *video.masks.values()):
            stat = path.stat()
            text += f"\n{path.name} {stat.st_size} {stat.st_mtime_ns}"
            num_bytes += stat.st_size * (_VIDEO_FILE_FACTOR if path == video.file else 1)
        own.append(name)
        part.update(text.encode())
        whole.update(text.encode())
        if num_bytes > shard_bytes or name == names[-1]:
            groups.append((tuple(own), part.hexdigest()))
            own, num_bytes, part = [], 0, hashlib.blake2b(repr(options).encode(), digest_size=8)
    _raise(problems, source)
    return groups, whole.hexdigest()


def _already_packed(final: Storage, source_digest: str) -> ShardIndex | None:
    """The index of a folder if it holds just this; None if there is nothing yet, or part of it."""
    names = files_in(final)
    if INDEX_NAME not in names and (RECORDS in names or all(map(OURS.fullmatch, names))):
        return None
    if INDEX_NAME not in names:
        raise DataError(f"{final.folder}: exists and holds no shards", "give another folder with --out")
    index = ShardIndex.load(final.folder)
    if index.source_digest == source_digest and names.issuperset(file.name for file in index.files):
        return index
    raise DataError(
        f"{final.folder}: holds other shards ({index.dataset} {index.split}, labels {index.labels}, "
        f"{len(index.videos)} videos), or their source has changed",
        "give another folder with --out, or replace it with --overwrite",
    )
