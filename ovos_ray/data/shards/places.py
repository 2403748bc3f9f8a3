"""Where in a shard file the bytes of each frame lie, so that a clip is read without its row groups.

Parquet says where row groups lie, not rows. `pack` adds to the footer how large each JPEG and label is, and the rest is
arithmetic: the values of a column are the end of its chunk, each behind four bytes that hold its size. A file stays
plain Parquet. What is known of it takes 32 bytes a row, where its footer takes 1,900 in memory.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import numpy as np
import pyarrow.parquet as pq

__all__ = ["PLACES_KEY", "Places", "Span", "text_of"]

PLACES_KEY = b"ovos_ray.places"
"""Key in the metadata of a file; those packed by earlier versions have none."""
_ROW = np.dtype([("jpeg", "<u4"), ("label", "<u4"), ("checksum", ">u8")])
_PREFIX = 4  # bytes before each value

Span = tuple[int, int]
"""Where bytes begin and end."""


def text_of(rows: Iterable[tuple[int, int, str]]) -> str:
    """Returns what a footer holds of rows: of each the bytes of JPEG and label (0: none), and the checksum."""
    found = [(jpeg, label, int(checksum, 16)) for jpeg, label, checksum in rows]
    return base64.b64encode(np.array(found, _ROW).tobytes()).decode()


class Places:
    """Where the rows of one file lie. They are a shortcut: where they are wrong, row groups have the last word.

    Args:
        rows: Sizes and checksums.
        jpegs: Where the JPEGs begin.
        labels: Where the labels would begin, of rows without one, too.
    """

    def __init__(self, rows: np.ndarray, jpegs: np.ndarray, labels: np.ndarray) -> None:
        self._rows, self._jpegs, self._labels = rows, jpegs, labels

    def __len__(self) -> int:
        return len(self._rows)

    @classmethod
    def of(cls, metadata: pq.FileMetaData, size: int) -> Places | None:
        """Returns the places of a file; None where it says nothing of them, or the impossible.

        Args:
            metadata: Its footer.
            size: Its bytes.
        """
        text = (metadata.metadata or {}).get(PLACES_KEY)
        if text is None:
            return None
        try:
            rows = np.frombuffer(base64.b64decode(text, validate=True), _ROW)
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            counts = np.array([group.num_rows for group in groups])
            if not len(rows) or counts.min() < 1 or counts.sum() != len(rows):
                return None
            jpegs, labels = (_starts(rows[name], name, metadata, counts, size) for name in ("jpeg", "label"))
        except (ValueError, OverflowError, OSError):
            return None
        return cls(rows, jpegs, labels)

    def spans(self, row: int) -> tuple[Span, Span | None]:
        """Returns where the JPEG of a row lies, and its label if it has one."""
        jpeg, label = int(self._rows["jpeg"][row]), int(self._rows["label"][row])
        at, below = int(self._jpegs[row]), int(self._labels[row])
        return (at, at + jpeg), (below, below + label) if label else None

    def checksum(self, row: int) -> str:
        """Returns the checksum of a row."""
        return f"{int(self._rows['checksum'][row]):016x}"


def _starts(sizes: np.ndarray, name: str, metadata: pq.FileMetaData, counts: np.ndarray, file_size: int) -> np.ndarray:
    """Returns where the values of a column begin.

    Raises:
        ValueError: They cannot be where the footer has them.
    """
    column = metadata.schema.names.index(name)
    chunks = [metadata.row_group(number).column(column) for number in range(metadata.num_row_groups)]
    begin = np.array([chunk.data_page_offset for chunk in chunks])
    room = np.array([chunk.total_compressed_size for chunk in chunks])
    own = sizes.astype(np.int64)
    taken = np.cumsum(own + _PREFIX * (own > 0))
    until = taken[np.cumsum(counts) - 1]  # of all groups up to and with each
    inside = (begin >= 0) & (begin <= file_size) & (room <= file_size - begin) & (np.diff(until, prepend=0) <= room)
    if not inside.all():
        raise ValueError(name)
    starts: np.ndarray = np.repeat(begin + room - until, counts) + taken - own
    return starts
