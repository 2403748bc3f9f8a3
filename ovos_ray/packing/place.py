"""Where shards are made: one pack at a time, in a hidden folder beside the one that is to be, or in its bucket."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyarrow import fs

from ovos_ray.errors import DataError
from ovos_ray.io import exclusive, make_folder
from ovos_ray.lease import LEASE_NAME, Lease, leased
from ovos_ray.packing.parts import RECORDS
from ovos_ray.paths import MARKER, require_replaceable, write_marker
from ovos_ray.storage import Storage, persistently

__all__ = ["OURS", "beside", "files_in", "place_of", "workplace"]

OURS = re.compile(r"(frames-\d{5}-[0-9a-f]+\.parquet|videos-[0-9a-f]+\.parquet|index\.json)(\.[0-9a-f]{8}\.tmp)?")
"""What a pack writes into a bucket, and what is left of it where an upload was killed."""
_UNFINISHED = "unfinished shards"
_log = logging.getLogger(__name__)


def place_of(out: str | Path) -> Storage:
    """Returns the folder or bucket that a user names."""
    text = str(out).removeprefix("file://")
    return Storage(text if "://" in text else str(Path(text).expanduser().absolute()))


@contextmanager
def workplace(final: Storage) -> Iterator[tuple[Storage, Lease]]:
    """Yields the folder for the parts, and holds it: the bucket itself or, on a disk, a hidden folder beside `final`.

    Raises:
        DataError: Another process packs it.
    """
    if not final.local:
        with _leased(final) as lease:
            yield final, lease
        return
    target, folder = Path(final.root).resolve(), beside(final)
    require_replaceable(folder, _UNFINISHED)
    make_folder(folder)
    write_marker(folder / MARKER, _UNFINISHED)

    def refuse(who: str) -> None:
        raise _packed_by(who, str(target))

    with exclusive(folder / "lock", refuse):
        finished = False
        try:
            yield Storage(str(folder)), Lease()
            finished = True
        finally:
            if finished or not (folder / RECORDS).is_dir():
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _leased(final: Storage) -> Iterator[Lease]:
    """Holds a bucket's folder. Waits a moment where it is held, as the holder may have been killed."""
    holder = ""

    def waiting(who: str) -> float:
        nonlocal holder
        holder = who
        _log.warning("%s: looking whether %s is still packing it", final.folder, who)
        return 0.0

    with ExitStack() as stack:
        try:
            lease = stack.enter_context(leased(final, waiting))
        except TimeoutError:
            raise _packed_by(holder, final.folder) from None
        yield lease


def _packed_by(who: str, where: str) -> DataError:
    return DataError(f"{where}: {who} is packing it", "wait until it has finished, or stop it; its files are kept")


def beside(final: Storage) -> Path:
    """Returns the hidden folder in which the parts of one on a disk are made."""
    target = Path(final.root).resolve()
    return target.with_name(f".{target.name}.packing")


def files_in(storage: Storage) -> set[str]:
    """Returns the names of what lies in a folder, apart from its lease."""
    below = fs.FileSelector(storage.root, allow_not_found=True)
    found = persistently(storage.folder, lambda: storage.fs.get_file_info(below))
    return {info.base_name for info in found} - {LEASE_NAME}
