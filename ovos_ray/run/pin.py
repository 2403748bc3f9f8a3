"""Pins what a run is made from: the content of its shards, and of the weights file that it starts with.

The rules by which the run is scored are pinned too, where `evaluation.protocol=auto` leaves them to the dataset.

A path says where, not what: shards are packed anew, and every release is called `model.pth`. What is pinned is part of
the digest, lies in `config.json` and in every checkpoint, and is compared when a run goes on.
"""

from __future__ import annotations

import functools
from pathlib import Path, PurePosixPath

from ovos_ray.config import INITS, EvaluationConfig, ExperimentConfig, override
from ovos_ray.errors import DataError, StorageError
from ovos_ray.storage import Storage, filesystem_of, persistently

__all__ = ["pin_content"]


def pin_content(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration with the digests of its shards and its weights file as they are now, and its protocol.

    What is not there is left open; `check_config` and `check_benchmarks` say what is wrong with it.

    Raises:
        StorageError: A bucket cannot be reached.
    """
    init = config.network.init
    is_file = init not in INITS and _exists(init)
    try:
        digests = tuple(_shard_digest(folder) for folder in config.data.shards)
    except StorageError:
        raise  # it is not known what is there
    except (DataError, OSError):
        digests = ()
    pinned = {"data.digests": digests, "network.init_sha256": _sha256(init) if is_file else ""}
    return override(config, {**pinned, "evaluation.protocol": _protocol(config.evaluation)})


def _protocol(evaluation: EvaluationConfig) -> str:
    if evaluation.protocol != "auto" or evaluation.source is None:
        return evaluation.protocol
    from ovos_ray.data.folders.open import open_dataset  # late: `show` is to answer at once
    from ovos_ray.evaluate.score.table import protocol_for

    try:
        layout = open_dataset(evaluation.source, layout=evaluation.layout).description.layout
    except (DataError, StorageError, OSError):
        return "auto"
    return protocol_for(layout)


def _exists(weights: str) -> bool:
    from ovos_ray.networks.remote_weights import weights_exist  # late: torch comes with it

    return weights_exist(weights)


def _shard_digest(folder: str) -> str:
    from ovos_ray.data.shards.index import INDEX_NAME  # late: `show` is to answer at once

    filesystem, root = filesystem_of(folder)
    path = str(PurePosixPath(root) / INDEX_NAME)
    info = persistently(folder, lambda: filesystem.get_file_info(path))
    return _digest_of_version(folder, info.mtime_ns, info.size)


@functools.lru_cache(maxsize=256)
def _digest_of_version(folder: str, mtime_ns: int | None, size: int | None) -> str:
    from ovos_ray.data.shards.index import ShardIndex

    return ShardIndex.shared(folder).digest


def _sha256(path: str) -> str:
    if "://" in path:
        folder, _, name = path.rpartition("/")
        storage = Storage(folder)
        info = persistently(path, lambda: storage.fs.get_file_info(storage.path(name)))
        return _sha256_of_version(path, info.mtime_ns or 0, info.size)
    status = Path(path).stat()
    return _sha256_of_version(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _sha256_of_version(path: str, mtime_ns: int, size: int) -> str:
    from ovos_ray.networks.remote_weights import sha256_of, weights_file

    return sha256_of(weights_file(path))
