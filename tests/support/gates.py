"""A run that stands still at chosen steps until somebody has done it harm: no kill comes too late for a short run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import wait_for
from runs import training_workers


class Gates:
    """A watcher that holds each run at some steps, the first time it gets there, until `opened` or killed.

    It may hold the run, which other watchers must not: the step is made, and the next one has not begun.
    """

    def __init__(self, folder: Path, steps: tuple[int, ...], then: Callable[[dict[str, Any]], None] | None = None):
        self.folder, self.steps, self._then = folder, steps, then
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, record: dict[str, Any]) -> None:
        if self._then is not None:
            self._then(record)
        mark = self.folder / f"{record['run']}-{record['step']}"
        if record["step"] in self.steps and "train/loss" in record and not mark.exists():
            mark.touch()
            while not (self.folder / "open").exists():
                time.sleep(0.02)

    def reached(self, run: str, step: int) -> bool:
        """Whether a run has come to one of its steps."""
        return (self.folder / f"{run}-{step}").exists()

    def open(self) -> None:
        """Lets everybody go on, and holds nobody any more."""
        (self.folder / "open").touch()


def kill_at(gates: Gates, run: str) -> threading.Thread:
    """Kills the training process of a run at each of its gates, with SIGKILL; the cluster is this process's own."""

    def kill() -> None:
        for step in gates.steps:
            wait_for(lambda step=step: gates.reached(run, step), 600)
            wait_for(lambda: bool(training_workers(os.getpid())), 300)
            for worker in training_workers(os.getpid()):
                worker.kill()
        gates.open()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread
