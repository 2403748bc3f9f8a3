"""How many trials run at a time, as the cluster grows and shrinks, and what is said while none does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

from ovos_ray.config import TrainConfig
from ovos_ray.on_ray.stall import cluster_state
from ovos_ray.run.resources import max_concurrent

__all__ = ["AsManyAsFit", "SaysWhenNoneRuns"]

_LOOK_S = 5.0
_SILENCE_S = 60.0
"""A trial's process takes some seconds to start, and tens of them on a busy machine."""


class AsManyAsFit(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Keeps a search at as many trials as fit on the cluster as it is now.

    Trials that hold what they need can be left to Tune. These are of several workers, whose process alone Tune knows
    of, or a searcher's, which learns from trials that have ended and must not be asked for more than can run.

    Args:
        search: Hands out the trials.
        trains: Those of the trials.
        say: Told of every other number.
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
    """Tells once of each wait in which no trial runs though some could: their nodes have gone, or others hold them.

    Args:
        say: Told of it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._tell_at: float | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune again and again."""
        states = {trial.status for trial in trials}
        if "RUNNING" in states or "PENDING" not in states:
            self._tell_at = None
        elif self._tell_at is None:
            self._tell_at = time.monotonic() + _SILENCE_S
        elif time.monotonic() >= self._tell_at:
            self._tell_at = math.inf
            waiting = sum(trial.status == "PENDING" for trial in trials)
            self._say(f"waiting for room for {waiting} trials, of which none runs: {cluster_state()}")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above
