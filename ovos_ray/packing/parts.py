"""A dataset in parts, one shard file each: made in any process, in any order, kept over a kill, the same bytes always.

A part is a function of its videos and the options alone. What it has made is a file, and beside it a record of what the
index needs to know; the record appears last, so that a file without one is half a file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, TypeAlias

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.shards.index import entry_of, plain
from ovos_ray.data.shards.video_entry import VideoEntry
from ovos_ray.errors import ResourceError
from ovos_ray.io import atomic_path
from ovos_ray.packing.label_choice import LabelFrame, Labels
from ovos_ray.packing.prepare import by_video, frames_of, map_in_order, prepare
from ovos_ray.packing.writer import ShardWriter
from ovos_ray.paths import no_imports_from_current_folder
from ovos_ray.storage import Storage, persistently

__all__ = ["RECORDS", "Options", "Part", "Record", "Runner", "in_processes", "make_part", "read_record"]

RECORDS = ".packing"
"""Folder of the records; it is gone when the shards are whole."""
_BLOCK = 1 << 23


@dataclass(frozen=True)
class Options:
    """What the bytes of a part follow from, beside its videos."""

    split: str
    labels: Labels
    label_frame: LabelFrame
    shortest_side: int | None
    rows_per_group: int


@dataclass(frozen=True)
class Part:
    """What becomes one shard file.

    Attributes:
        number: Its place among the parts.
        file: Name of the shard file.
        source: The dataset folder and what tells this pack from others, pickled; a process opens it once a pack.
        options: How it is packed.
        videos: Names of its videos.
        digest: Of names, sizes and times of their files, and of the options.
        folder: Where the file and its record go.
        num_threads: That read, check and encode.
    """

    number: int
    file: str
    source: bytes
    options: Options
    videos: tuple[str, ...]
    digest: str
    folder: str
    num_threads: int


@dataclass(frozen=True)
class Record:
    """What is known of a finished part.

    Attributes:
        digest: That of the part.
        content: Hash of the file.
        num_rows: Rows in it.
        num_reencoded: Frames that were encoded anew.
        videos: Entries of the index.
        checksums: Of the rows.
    """

    digest: str
    content: str
    num_rows: int
    num_reencoded: int
    videos: Sequence[VideoEntry]
    checksums: Sequence[str]


Runner: TypeAlias = "Callable[[Sequence[Part]], Iterable[tuple[Part, list[str]]]]"
"""Makes parts somewhere, and yields each with what is wrong with it as it is done."""


def make_part(part: Part, progress: Callable[[], None] | None = None) -> list[str]:
    """Makes one part, unless it is there already and sound.

    Args:
        part: The part.
        progress: Called after each video.

    Returns:
        What is wrong with its videos; then there is no such part.
    """
    storage = Storage(part.folder)
    record = read_record(part)
    if record is not None and record.content == _content(storage, part.file):
        return []
    try:
        with _published(storage, part.file) as path:
            writer = _write(part, path, progress)
            content = _hash(path.open("rb"))
    except _FlawedError as flawed:
        return flawed.problems
    made = Record(part.digest, content, writer.num_rows, writer.num_reencoded, writer.videos, writer.checksums)
    value = {**vars(made), "videos": [plain(video) for video in made.videos]}
    storage.write(json.dumps(value).encode(), RECORDS, f"{part.file}.json")
    return []


def read_record(part: Part) -> Record | None:
    """Returns the record of a part as it is now; None if it is not finished, or of other files or options."""
    try:
        value: dict[str, Any] = json.loads(Storage(part.folder).read(RECORDS, f"{part.file}.json"))
        record = Record(**{**value, "videos": [entry_of(video) for video in value["videos"]]})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if record.digest == part.digest else None


def in_processes(parts: Sequence[Part], num_workers: int) -> Iterator[tuple[Part, list[str]]]:
    """Makes parts in processes of this machine; yields each as it is done.

    Raises:
        ResourceError: One of them died.
    """
    # Spawned: a process that is forked from one with threads may hang in a lock that one of them held.
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"))
    try:
        with no_imports_from_current_folder():
            waiting = {pool.submit(make_part, part): part for part in parts}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BrokenExecutor as error:
        raise ResourceError(
            f"one of {num_workers} packing processes died ({error}); it may have been short of memory",
            "give the same command again, perhaps with fewer --num-workers: finished files are kept",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _FlawedError(Exception):
    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems


@functools.lru_cache(maxsize=1)
def _opened(pickled: bytes) -> DatasetFolder:
    source: DatasetFolder
    source, _ = pickle.loads(pickled)  # noqa: S301 - the driver's own
    return source


def _write(part: Part, path: Path, progress: Callable[[], None] | None) -> ShardWriter:
    source, options = _opened(part.source), part.options
    videos = (source.video(options.split, name) for name in part.videos)
    frames = frames_of(videos, options.labels, options.label_frame, options.shortest_side)
    problems: list[str] = []
    with ThreadPoolExecutor(part.num_threads) as pool:
        with ShardWriter(path, source.description.name, part.number, options.rows_per_group) as writer:
            for video, rows in by_video(map_in_order(pool, prepare, frames, 4 * part.num_threads)):
                problems += writer.add(video, rows, one_frame_allowed=source.of_images)
                if progress is not None:
                    progress()
        if problems:
            raise _FlawedError(problems)
    return writer


@contextmanager
def _published(storage: Storage, name: str) -> Iterator[Path]:
    """Yields a path to write to; what is there appears under the name when it is complete."""
    if storage.local:
        with atomic_path(storage.path(name)) as path:
            yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield (path := Path(folder, name))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            storage.write(memoryview(mapped), name)


def _content(storage: Storage, name: str) -> str | None:
    """Hash of a file as it lies there."""
    try:
        return persistently(storage.location(name), lambda: _hash(storage.fs.open_input_stream(storage.path(name))))
    except FileNotFoundError:
        return None


def _hash(file: IO[bytes]) -> str:
    state = hashlib.blake2b(digest_size=16)
    with file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
