"""Weights files by URI: fetched whole, checked, and kept on this machine for whoever asks next.

CACHE/weights/SHA256/FILE.pth
CACHE/weights/SHA256/result.json    of the run that wrote it, if one did
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from ovos_ray.errors import WeightsError
from ovos_ray.io import atomic_path
from ovos_ray.paths import cache_folder
from ovos_ray.storage import Storage, location_of

__all__ = ["sha256_of", "weights_exist", "weights_file"]


def weights_exist(location: str | Path) -> bool:
    """Whether there is a weights file at a path or URI.

    Raises:
        StorageError: The bucket cannot be reached.
    """
    uri = location_of(location)
    if "://" not in uri:
        return os.path.isfile(location)  # also of what can be no path
    folder, _, name = uri.rpartition("/")
    return Storage(folder).exists(name)


def weights_file(location: str | Path, sha256: str = "") -> Path:
    """Returns the path of a weights file on this machine; one in a bucket is fetched first.

    Args:
        location: A path or URI.
        sha256: What it is known to be, where that is known; for files in a bucket.

    Raises:
        WeightsError: There is none, or it is another one by now.
        StorageError: The bucket cannot be reached.
    """
    uri = location_of(location)
    if "://" not in uri:
        return Path(location)
    folder, _, name = uri.rpartition("/")
    kept = cache_folder() / "weights" / sha256 / name
    if sha256 and kept.is_file() and sha256_of(kept) == sha256:
        return kept
    storage = Storage(folder)
    try:
        content = storage.read(name)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weights file {uri}", "check the address") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise WeightsError(
            f"{uri} was replaced: its SHA-256 is {found[:12]}…, and was {sha256[:12]}… when this run was begun",
            "bring the file back, or give this run another name=…",
        )
    kept = cache_folder() / "weights" / found / name
    with suppress(FileNotFoundError):
        _keep(kept.with_name("result.json"), storage.read("result.json"))
    _keep(kept, content)
    return kept


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def _keep(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
