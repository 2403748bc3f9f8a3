"""Spools of runs that are kept in a bucket: what was not sent goes there before its machine may go.

A spool must lie on a disk, since every record is appended to it. When a run ends while the tracking server is away, its
spool is copied to the run's folder in the bucket; `sync_bucket` fetches, sends and removes it from any machine.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Callable
from pathlib import Path

from pyarrow import fs

from ovos_ray.errors import TrackingError
from ovos_ray.storage import Storage, persistently
from ovos_ray.track.leftovers import Unsent, sync
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import find_spools

__all__ = ["finish_and_keep", "sync_bucket"]

_FOLDER = "tracking"


def finish_and_keep(sink: Sink, storage: Storage, status: str = "FINISHED") -> bool:
    """Ends a run; what the server does not have is copied to `storage` if that is a bucket.

    Returns:
        Whether the server has everything.
    """
    done = sink.finish(status)
    folder = sink.spool_folder
    if not done and folder is not None and not storage.local:
        _copy(storage, str(folder), storage.path(_FOLDER, folder.name), fs.LocalFileSystem(), storage.fs)
    return done


def sync_bucket(
    storage: Storage, *, tracking_uri: str | None = None, confirm: Callable[[str, Path], bool] | None = None
) -> list[Unsent]:
    """Sends the spools found anywhere in a bucket folder; those that were sent are removed from it.

    `leftovers.sync` says what `tracking_uri` and `confirm` are.

    Returns:
        One entry for each run that is still incomplete on its server, with the reason.

    Raises:
        TrackingError: There is no such folder, or a key in it leads elsewhere.
        StorageError: The bucket cannot be reached.
    """
    below = fs.FileSelector(storage.root, recursive=True, allow_not_found=True)
    found = persistently(storage.folder, lambda: storage.fs.get_file_info(below))
    if not found:
        raise TrackingError(f"{storage.folder} is absent or empty", "give the storage of the runs")
    for info in found:
        # A key of a bucket is no path: any text will do, and where it is copied to it would lead elsewhere.
        if {".", ".."} & set(info.path.split("/")):
            raise TrackingError(f"{storage.folder} holds a key that leads elsewhere: {info.path!r}", "remove it")
    spools = [
        posixpath.dirname(info.path)
        for info in found
        if info.base_name == "run.json" and f"/{_FOLDER}/" in info.path[len(storage.root) :]
    ]
    with tempfile.TemporaryDirectory(prefix="ovos-sync-") as name:
        here = Path(name)
        for number, path in enumerate(spools):
            # Numbered: spools of different runs may be named alike. `files` may be empty, which buckets do not keep.
            target = here / f"{number}" / posixpath.basename(path)
            (target / "files").mkdir(parents=True)
            _copy(storage, path, str(target), storage.fs, fs.LocalFileSystem())
        left = sync(here, tracking_uri=tracking_uri, confirm=confirm)
        unsent = {(entry.experiment, entry.run_key) for entry in left}
        for number, path in enumerate(spools):
            for spool in find_spools(here / f"{number}")[0]:
                if (spool.identity.experiment, spool.identity.run_key) not in unsent:
                    storage.remove_folder(path[len(storage.root) :].strip("/"))
    return left


def _copy(storage: Storage, source: str, target: str, there: fs.FileSystem, here: fs.FileSystem) -> None:
    persistently(storage.folder, lambda: fs.copy_files(source, target, there, here))
