"""Requests and bytes that a clip takes from a bucket, and the seconds that follow from them.

    python benchmarks/bucket_reads.py

Counted on a file that stands for a bucket's; a request is taken to last 20 ms and a stream to bring 100 MB/s, as S3
does within a region. `Arrow alone` makes a request for each run of row groups.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ovos_ray.data.shards.reader import SCHEMA, _extent
from ovos_ray.storage import RemoteFile

FRAMES, FRAME_BYTES, ROWS = 100, 60_000, 4
CLIPS, CLIP_LENGTH = 200, 8
REQUEST_S, BYTES_PER_S = 0.020, 100e6


class Counted:
    """A file that counts what is asked of it."""

    def __init__(self, path: Path) -> None:
        self.content, self.requests, self.bytes = path.read_bytes(), 0, 0

    def open_input_file(self, _: str) -> Counted:
        """Opens it."""
        return self

    def size(self) -> int:
        """Returns its length in bytes."""
        return len(self.content)

    def read_at(self, size: int, start: int) -> bytes:
        """Returns a part of it."""
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        return self.content[start : start + size]


def write(path: Path, videos: int) -> None:
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=False) as writer:
        for first in range(0, videos * FRAMES, ROWS):
            rows: list[dict[str, Any]] = [
                {
                    "dataset": "d", "video": f"v{row // FRAMES}", "frame": row % FRAMES, "name": f"{row % FRAMES:05d}",
                    "jpeg": rng.bytes(int(FRAME_BYTES * rng.uniform(0.7, 1.3))),
                    "label": rng.bytes(3000) if row % FRAMES == 0 else None,
                    "height": 480, "width": 854, "checksum": "0" * 16,
                }
                for row in range(first, first + ROWS)
            ]  # fmt: skip
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=ROWS)


def groups_of(draw: np.random.Generator, videos: int, max_skip: int) -> Sequence[int]:
    first = int(draw.integers(videos)) * FRAMES
    rows = first + np.concatenate([[0], np.cumsum(draw.integers(1, max_skip + 1, CLIP_LENGTH - 1))])
    return [int(group) for group in np.unique(rows[rows < first + FRAMES] // ROWS)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, videos = Path(folder, "frames.parquet"), 10
        write(path, videos)
        ways = {"Arrow alone": None, "holes to 256 KiB": 1 << 18, "to 1 MiB": 1 << 20, "to 4 MiB": 1 << 22}
        print(f"{'':20}{'D':>4}{'requests':>10}{'MB':>8}{'s':>8}   a clip of {CLIP_LENGTH} frames")
        for max_skip, (name, hole) in itertools.product((5, 10, 25), ways.items()):
            source, draw = Counted(path), np.random.default_rng(1)
            remote = RemoteFile(source, "x", "s3://b/x")
            parquet = pq.ParquetFile(pa.PythonFile(remote, mode="r"))
            source.requests = source.bytes = 0
            for _ in range(CLIPS):
                groups = groups_of(draw, videos, max_skip)
                if hole is not None:
                    remote.keep((_extent(parquet, group) for group in groups), hole=hole)
                parquet.read_row_groups(groups, columns=["video", "frame", "name", "jpeg", "label", "checksum"])
            requests, size = source.requests / CLIPS, source.bytes / CLIPS
            seconds = requests * REQUEST_S + size / BYTES_PER_S
            print(f"{name:20}{max_skip:4}{requests:10.1f}{size / 1e6:8.2f}{seconds:8.3f}")


if __name__ == "__main__":
    main()
