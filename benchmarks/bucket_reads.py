"""Requests, bytes and memory that clips take from shards: by row groups of 4, 2 and 1, and by the places in a footer.

    python benchmarks/bucket_reads.py

One shard file of noise in JPEGs of 146 kB, as 854x480 frames are: many videos of 27 frames (YouTube-VOS), and of 70
(DAVIS). Clips are those of the recipes. Opening a file in a bucket counts as a request.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pyarrow import fs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.data.clips.plan import Clip, Plan
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import ObjectBox
from ovos_ray.data.shards import shard_file
from ovos_ray.data.shards.index import LabelBudget, ShardFile, ShardIndex
from ovos_ray.data.shards.places import Places
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.shard_file import row_checksum
from ovos_ray.packing.prepare import PackedRow
from ovos_ray.packing.writer import ShardWriter
from ovos_ray.storage import Storage
from trainables import one_shot

FRAME_BYTES, LABEL_BYTES = 146_000, 3000
DATASETS = {"YouTube-VOS": (68, 27, 5), "DAVIS": (26, 70, 1)}  # videos of a file, frames of each, frame interval
RECIPES = {"STCN": one_shot.stcn().data, "XMem": one_shot.xmem().data}
CLIPS, COPIES = 150, 20


class Bucket:
    """A disk that is taken for a bucket, and counts what is asked of it."""

    type_name = "counted"

    def __init__(self) -> None:
        self.requests = self.bytes = 0

    def open_input_file(self, path: str) -> Any:
        """Opens a file of it."""
        self.requests += 1
        return Counted(self, fs.LocalFileSystem().open_input_file(path))


class Counted:
    """A file of it."""

    def __init__(self, bucket: Bucket, file: Any) -> None:
        self.bucket, self.file, self.size = bucket, file, file.size

    def read_at(self, size: int, start: int) -> bytes:
        """Returns a part of it."""
        self.bucket.requests, self.bucket.bytes = self.bucket.requests + 1, self.bucket.bytes + size
        content: bytes = self.file.read_at(size, start)
        return content


def write(folder: Path, rows_per_group: int, videos: int, frames: int, interval: int) -> None:
    rng = np.random.default_rng(0)
    box = (ObjectBox(1, 0, 0, 50, 50, 9),)

    def row(video: str, frame: int) -> PackedRow:
        jpeg = rng.bytes(int(FRAME_BYTES * rng.uniform(0.7, 1.3)))
        label = None if frame else rng.bytes(LABEL_BYTES)
        checksum = row_checksum(video, frame, f"{frame:05d}", jpeg, label)
        return PackedRow(frame, None, f"{frame:05d}", jpeg, label, 480, 854, () if frame else box, checksum=checksum)

    with ShardWriter(folder / "frames-00000.parquet", "noise", 0, rows_per_group) as writer:
        for number in range(videos):
            video = Video(f"{number:010x}", (), None, {})
            writer.add(video, (row(video.name, frame) for frame in range(frames)), one_frame_allowed=False)
    ShardIndex(
        dataset="noise", layout="davis2017", split="train", labels="first", frame_interval=interval, shortest_side=None,
        num_reencoded=0, budget=LabelBudget(videos, videos * frames), digest="0" * 16, source_digest="0" * 16,
        rows_per_group=rows_per_group, files=(ShardFile("frames-00000.parquet", writer.num_rows),),
        videos=tuple(writer.videos),
    ).save(Storage(str(folder)))  # fmt: skip


def clips_of(folder: Path, recipe: str, max_skip: int | None) -> Sequence[Clip]:
    """Clips of a whole training with one D, or with the recipe's own."""
    data = dataclasses.replace(RECIPES[recipe], shards=(str(folder),), multipliers=())
    if max_skip is not None:
        data = dataclasses.replace(data, max_skip=((0.0, max_skip),))
    plan = Plan.load(data, seed=0, steps=CLIPS)
    return [plan.clip(step * data.batch_size) for step in range(CLIPS)]


def from_bucket(reader: ShardReader, bucket: Bucket, clips: Sequence[Clip]) -> str:
    """Requests a clip, and how many times what it wants it reads."""
    bucket.requests = bucket.bytes = wanted = 0
    for clip in clips:
        wanted += sum(len(row.jpeg) + len(row.label or b"") for row in reader.read(clip.video, clip.frames))
    return f"{bucket.requests / CLIPS:.1f}, {bucket.bytes / wanted:.2f}"


def opening(folder: Path, bucket: Bucket) -> str:
    """What a process pays for an open file."""
    readers = [ShardReader(folder) for _ in range(COPIES)]
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    own, bucket.requests, bucket.bytes = psutil.Process().memory_full_info().uss, 0, 0
    before = time.process_time()
    for reader in readers:
        reader._file(0)
    taken = 1e3 * (time.process_time() - before) / COPIES
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    memory = (psutil.Process().memory_full_info().uss - own) / COPIES / 2**20
    requests, size = bucket.requests / COPIES, bucket.bytes / COPIES / 1e3
    return f"{requests:.0f} requests, {size:.0f} kB, {taken:.1f} ms of processor time, {memory:.2f} MiB kept"


def on_disk(folder: Path, clips: Sequence[Clip]) -> str:
    """Processor milliseconds of reading a clip that the page cache holds."""
    reader, taken = ShardReader(folder), []
    for _ in range(4):
        before = time.process_time()
        for clip in clips:
            reader.read(clip.video, clip.frames)
        taken.append(1e3 * (time.process_time() - before) / CLIPS)
    return f"{min(taken):.2f}"


def main() -> None:
    module: Any = shard_file
    found_by, filesystem_of = Places.of, module.filesystem_of
    for name, (rows_per_group, by_places) in itertools.product(
        DATASETS, ((4, False), (2, False), (1, False), (4, True))
    ):
        with tempfile.TemporaryDirectory() as text:
            folder, bucket = Path(text), Bucket()
            write(folder, rows_per_group, *DATASETS[name])
            Places.of = found_by if by_places else lambda *_: None  # type: ignore[method-assign]
            in_bucket = lambda location, bucket=bucket: (bucket, str(location))  # noqa: E731
            print(f"\n{name}, groups of {rows_per_group}, by {'places' if by_places else 'groups'}", flush=True)
            module.filesystem_of = in_bucket
            print(f"  a file opened in a bucket: {opening(folder, bucket)}")
            print("  requests a clip, bytes read of bytes wanted, ms on a disk:")
            for recipe, max_skip in itertools.product(RECIPES, (5, 15, 25, None)):
                clips = clips_of(folder, recipe, max_skip)
                module.filesystem_of = in_bucket
                reader = ShardReader(folder)
                reader._file(0)
                far = from_bucket(reader, bucket, clips)
                module.filesystem_of = filesystem_of
                skip = "its own D" if max_skip is None else f"D = {max_skip}"
                print(f"  {recipe}, {skip}: {far}, {on_disk(folder, clips)}", flush=True)


if __name__ == "__main__":
    main()
