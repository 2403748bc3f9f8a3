"""Checkpoints that are complete or do not count.

A checkpoint is a folder `step-00000500` with `state.pt` and, written last, `complete.json` with the size and SHA-256 of
the former. A reader takes the newest folder whose marker matches its file; whatever a killed process left behind is
passed over. Files hold tensors and plain values only, so that they load with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import posixpath
import re
from collections.abc import Mapping
from typing import Any

import torch
from pyarrow import fs

from ovos_ray.errors import CheckpointError
from ovos_ray.io import atomic_path

__all__ = ["CheckpointStore"]

_log = logging.getLogger(__name__)
_FOLDER = re.compile(r"step-(\d{8,})$")


class CheckpointStore:
    """The checkpoints of one run, in a folder or a bucket.

    Args:
        folder: A path, or a URI that `pyarrow.fs` understands (`s3://`, `gs://`, `file://`, …).
        keep: Complete checkpoints kept; older ones are removed after each save.
    """

    def __init__(self, folder: str, *, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self._fs, self._root = _filesystem(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_store, (self.folder, self.keep)

    def path(self, step: int) -> str:
        """Returns where the checkpoint of a step is stored."""
        return posixpath.join(self._root, f"step-{step:08d}")

    def save(self, step: int, state: Mapping[str, Any]) -> str:
        """Writes a checkpoint and removes old ones.

        Args:
            step: Optimiser steps done.
            state: Tensors, numbers, strings, and lists and dicts of them.

        Returns:
            Where it was stored.

        Raises:
            OSError: The storage is full or out of reach; earlier checkpoints are untouched.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getvalue()
        marker = {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        folder = self.path(step)
        self._fs.create_dir(folder, recursive=True)
        self._write(posixpath.join(folder, "state.pt"), content)
        self._write(posixpath.join(folder, "complete.json"), json.dumps(marker).encode())
        self._prune()
        return folder

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None. Damaged ones are named in the log."""
        for step in sorted(self._steps(), reverse=True):
            try:
                self._read(step)
            except CheckpointError as error:
                _log.warning("%s; an earlier checkpoint is used", error.message)
            else:
                return step
        return None

    def load(self, step: int, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
        """Loads the checkpoint of a step.

        Raises:
            CheckpointError: It is absent, incomplete or damaged.
        """
        state: dict[str, Any] = torch.load(io.BytesIO(self._read(step)), map_location=map_location, weights_only=True)
        return state

    def _steps(self) -> list[int]:
        selector = fs.FileSelector(self._root, allow_not_found=True)
        matches = (_FOLDER.search(info.path) for info in self._fs.get_file_info(selector))
        return [int(match[1]) for match in matches if match]

    def _read(self, step: int) -> bytes:
        folder = self.path(step)
        try:
            with self._fs.open_input_file(posixpath.join(folder, "complete.json")) as file:
                marker = json.loads(file.read())
            with self._fs.open_input_file(posixpath.join(folder, "state.pt")) as file:
                content: bytes = file.read()
        except (FileNotFoundError, json.JSONDecodeError) as error:
            raise CheckpointError(f"checkpoint {folder} is incomplete ({type(error).__name__})") from error
        if len(content) != marker["bytes"] or hashlib.sha256(content).hexdigest() != marker["sha256"]:
            raise CheckpointError(f"checkpoint {folder} is damaged: {len(content)} bytes do not match its marker")
        return content

    def _write(self, path: str, content: bytes) -> None:
        if isinstance(self._fs, fs.LocalFileSystem):
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        else:  # an object store shows an object only when it is whole
            with self._fs.open_output_stream(path) as file:
                file.write(content)

    def _prune(self) -> None:
        for step in sorted(self._steps())[: -self.keep]:
            folder = self.path(step)
            try:
                # The marker goes first: a folder half removed must not look complete.
                self._fs.delete_file(posixpath.join(folder, "complete.json"))
                self._fs.delete_dir(folder)
            except OSError as error:
                _log.warning("cannot remove old checkpoint %s: %s", folder, error)


def _make_store(folder: str, keep: int) -> CheckpointStore:
    return CheckpointStore(folder, keep=keep)


def _filesystem(folder: str) -> tuple[fs.FileSystem, str]:
    if "://" in folder:
        found, root = fs.FileSystem.from_uri(folder)
        return found, root
    from pathlib import Path

    return fs.LocalFileSystem(), str(Path(folder).absolute())
