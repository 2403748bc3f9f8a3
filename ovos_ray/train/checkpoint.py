"""Checkpoints that are complete or do not count.

A checkpoint is a folder `step-00000500` with `state.pt` and, written last, `complete.json` with the step and the size
and SHA-256 of the former. A reader takes the newest folder whose marker is, byte for byte, the one that its name and
file call for; whatever a killed process or a bad disk left behind is passed over. Files hold tensors and plain values
only, so that they load with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from ovos_ray.errors import CheckpointError
from ovos_ray.storage import Storage

__all__ = ["CheckpointStore"]

_log = logging.getLogger(__name__)
_FOLDER = re.compile(r"step-(\d{8,})")
_STATE, _MARKER = "state.pt", "complete.json"


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        storage: The folder that holds them.
        keep: Complete checkpoints kept; older ones are removed after each save.
    """

    def __init__(self, storage: Storage, *, keep: int = 2) -> None:
        self.storage, self.keep = storage, keep

    def save(self, step: int, state: Mapping[str, Any], *, keep_step: int | None = None) -> str:
        """Writes a checkpoint and removes old ones.

        Args:
            step: Optimiser steps done.
            state: Tensors, numbers, strings, and lists and dicts of them.
            keep_step: An older checkpoint that is kept beside the newest ones, such as the best so far.

        Returns:
            The name of its folder.

        Raises:
            OSError: The storage is full or out of reach; earlier checkpoints are untouched.
        """
        import torch  # late: whoever only looks at a run's folder needs none

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getbuffer()  # no copy: a checkpoint is three times the network
        folder = _folder(step)
        self.storage.write(content, folder, _STATE)
        self.storage.write(_marker(step, content), folder, _MARKER)
        self._prune(step, keep_step)
        return folder

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None. Damaged ones are named in the log.

        Raises:
            OSError: The storage is out of reach: that says nothing of what it holds.
        """
        found = self._newest()
        return None if found is None else found[0]

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """Returns step and state of the newest complete checkpoint, read once; see `latest` and `load`."""
        found = self._newest()
        return None if found is None else (found[0], self._state(*found))

    def newest_marked(self) -> int | None:
        """Returns the step of the newest checkpoint by its marker, unread: enough to tell, not to resume."""
        return next((step for step in reversed(self._steps()) if self.storage.exists(_folder(step), _MARKER)), None)

    def load(self, step: int) -> dict[str, Any]:
        """Loads the checkpoint of a step, onto the CPU.

        Raises:
            CheckpointError: It is absent, incomplete, damaged, or holds more than tensors and plain values.
            OSError: The storage is out of reach.
        """
        return self._state(step, self._read(step))

    def remove_all(self) -> None:
        """Removes all checkpoints; what cannot be removed is named in the log."""
        for step in self._steps():
            self._remove(step)

    def _newest(self) -> tuple[int, bytes] | None:
        for step in reversed(self._steps()):
            try:
                return step, self._read(step)
            except CheckpointError as error:
                _log.warning("%s; an earlier checkpoint is used", error.message)
        return None

    def _state(self, step: int, content: bytes) -> dict[str, Any]:
        import torch

        from ovos_ray.networks.weight_files import refuse_expansion

        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                refuse_expansion(archive, len(content), _folder(step))
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:
            if "memory" in str(error):
                raise
            raise CheckpointError(
                f"checkpoint {self.storage.path(_folder(step))} was refused: it holds more, or other, than tensors and "
                f"plain values ({type(error).__name__})",
                "only go on from checkpoints of your own; remove this folder, and an earlier one is used",
            ) from error
        return state

    def _steps(self) -> list[int]:
        return sorted(int(match[1]) for name in self.storage.folders() if (match := _FOLDER.fullmatch(name)))

    def _read(self, step: int) -> bytes:
        folder = _folder(step)
        where = self.storage.path(folder)
        if not (self.storage.exists(folder, _MARKER) and self.storage.exists(folder, _STATE)):
            raise CheckpointError(f"checkpoint {where} is incomplete: {_MARKER} or {_STATE} is not there")
        try:
            marker, content = self.storage.read(folder, _MARKER), self.storage.read(folder, _STATE)
        except FileNotFoundError as error:  # removed just now, as by the run that keeps its newest ones
            raise CheckpointError(f"checkpoint {where} is incomplete: it was removed just now") from error
        if marker != _marker(step, content):
            raise CheckpointError(f"checkpoint {where} is damaged: its {len(content)} bytes do not match its marker")
        return content

    def _prune(self, newest: int, keep_step: int | None) -> None:
        # What a killed process left at later steps is no checkpoint, and must not push one out.
        for step in [s for s in self._steps() if s <= newest and s != keep_step][: -self.keep]:
            self._remove(step)

    def _remove(self, step: int) -> None:
        folder = _folder(step)
        try:
            # The marker goes first: a folder half removed must not look complete.
            if self.storage.exists(folder, _MARKER):
                self.storage.remove(folder, _MARKER)
            self.storage.remove_folder(folder)
        except OSError as error:
            _log.warning("cannot remove old checkpoint %s: %s", self.storage.path(folder), error)


def _marker(step: int, content: bytes | memoryview) -> bytes:
    return json.dumps({"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}).encode()


def _folder(step: int) -> str:
    return f"step-{step:08d}"
