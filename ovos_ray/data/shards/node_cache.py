"""Shards of a bucket kept on a node's own disk: fetched once for all processes and runs there, whole or absent.

CACHE/DIGEST/frames-00000.parquet
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.io import atomic_path, exclusive

__all__ = ["cached_path", "is_cached"]

_BLOCK_BYTES = 16 * 2**20
_SPARE_BYTES = 2**30
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a disk answers that takes no more, and a bucket never."""
_log = logging.getLogger(__name__)


def cached_path(cache: str, folder: str, index: ShardIndex, shard: int) -> Path:
    """Returns where a file of a shard folder is kept; one of another folder lies elsewhere, whatever its index says."""
    parts = repr((folder, index.digest, index.rows_per_group, [(file.name, file.num_rows) for file in index.files]))
    return Path(cache, hashlib.sha256(parts.encode()).hexdigest()[:16], index.files[shard].name)


def is_cached(path: Path, opened: Callable[[], RangedFile]) -> bool:
    """Whether a file of a bucket is on this disk now: it is fetched if there is room for it and a gigabyte more.

    Raises:
        StorageError: The bucket cannot be reached.
    """
    try:
        return path.is_file() or _is_fetched(path, opened)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _log.warning("%s: %s; its shards are read from the bucket", path.parent, error.strerror)
        return False


def _is_fetched(path: Path, opened: Callable[[], RangedFile]) -> bool:
    with exclusive(path.with_name(f"{path.name}.lock")):
        if path.is_file():  # fetched by whom this one waited for
            return True
        remote = opened()
        size = remote.seek(0, os.SEEK_END)
        if (free := shutil.disk_usage(path.parent).free) < size + _SPARE_BYTES:
            _log.warning("%s: %.1f GiB are free, too few to keep shards there", path.parent, free / 2**30)
            return False
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            for start in range(0, size, _BLOCK_BYTES):
                remote.seek(start)
                file.write(remote.read(_BLOCK_BYTES))
    return True
