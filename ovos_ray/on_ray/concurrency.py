"""How many trials run at a time, as the cluster grows and shrinks, and what is said while none does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

from ovos_ray.config import TrainConfig
from ovos_ray.errors import StorageError
from ovos_ray.on_ray.room import is_free
from ovos_ray.on_ray.stall import cluster_state
from ovos_ray.on_ray.trial import request_of
from ovos_ray.on_ray.workers import holds_processors
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import max_concurrent
from ovos_ray.train.run_folder import RunFolder

__all__ = ["AsManyAsFit", "SaysWhenNoneRuns"]

_LOOK_S = 5.0
_SILENCE_S = 60.0
"""A trial's process takes some seconds to start, and tens of them on a busy machine."""


class AsManyAsFit(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Hands out as many trials at a time as fit on the cluster as it is now.

    Tune does this by itself where a trial's process holds all that the trial needs. It cannot for trials of several
    workers, of which it only knows the process that drives them. Nor may it ask a searcher for more trials than can
    run, since a searcher learns from those that have ended.

    Args:
        search: Where Tune takes trials from; its limit is set here.
        trains: The trials' `train` settings.
        say: Told whenever the number changes.
        more: How many trials wait beside those that fit: an autoscaler starts nodes for what waits.
    """

    def __init__(
        self,
        search: BasicVariantGenerator | ConcurrencyLimiter,
        trains: Sequence[TrainConfig],
        say: Callable[[str], None],
        more: int = 0,
    ) -> None:
        self._search, self._trains, self._say, self._more = search, trains, say, more
        self._looked, self._fit = time.monotonic(), self.now(trains)
        search.max_concurrent = self._fit + more

    @staticmethod
    def now(trains: Sequence[TrainConfig]) -> int:
        """Returns how many trials fit now."""
        return max_concurrent(trains, ray.cluster_resources())

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune again and again; looks every few seconds."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        before, fit = self._fit, self.now(self._trains)
        if fit != before:
            self._fit, self._search.max_concurrent = fit, fit + self._more
            self._say(f"{fit} trials at a time from now on, as many as fit ({before} before)")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores callbacks' state with its own; there is none to keep


class SaysWhenNoneRuns(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Says so, once each time, when no trial has run for a minute though some wait: nodes have gone, or are held.

    Args:
        requests: The runs by trial name.
        say: Told of it.
    """

    def __init__(self, requests: Mapping[str, RunRequest], say: Callable[[str], None]) -> None:
        self._requests, self._say = requests, say
        self._looked = -math.inf
        self._tell_at: float | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune again and again; looks every few seconds."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        waiting = [trial for trial in trials if trial.status in ("PENDING", "RUNNING")]
        if not waiting or any(self._runs(trial) for trial in waiting):
            self._tell_at = None
        elif self._tell_at is None:
            self._tell_at = now + _SILENCE_S
        elif now >= self._tell_at:
            self._tell_at = math.inf
            self._say(f"waiting for room for {len(waiting)} trials, of which none runs: {cluster_state()}")

    def _runs(self, trial: Any) -> bool:
        """Whether a trial runs, or is about to: its processors are free, or its workers hold them.

        Tune's own status says too little: of a trial of several workers it is that of the process that drives them.
        """
        if trial.status != "RUNNING":
            return False
        config = request_of(trial.config, self._requests).config
        try:
            return config.train.num_workers == 1 or is_free(config) or holds_processors(RunFolder.of(config))
        except StorageError:  # a message is not worth a study
            return True

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above
