"""How many trials run at a time, as the cluster grows and shrinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

from ovos_ray.config import TrainConfig
from ovos_ray.run.resources import max_concurrent

__all__ = ["AsManyAsFit"]

_LOOK_S = 5.0


class AsManyAsFit(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Keeps a search at as many trials as fit on the cluster as it is now.

    Trials that hold what they need can be left to Tune. These are of several workers, whose process alone Tune knows
    of, or a searcher's, which learns from trials that have ended and must not be asked for more than can run.

    Args:
        search: Hands out the trials.
        trains: Those of the trials.
        say: Told of every other number.
    """

    def __init__(
        self,
        search: BasicVariantGenerator | ConcurrencyLimiter,
        trains: Sequence[TrainConfig],
        say: Callable[[str], None],
    ) -> None:
        self._search, self._trains, self._say = search, trains, say
        self._looked = time.monotonic()

    @staticmethod
    def now(trains: Sequence[TrainConfig]) -> int:
        """Returns how many trials fit now."""
        return max_concurrent(trains, ray.cluster_resources())

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune again and again; looks every few seconds."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        before, fit = self._search.max_concurrent, self.now(self._trains)
        if fit != before:
            self._search.max_concurrent = fit
            self._say(f"{fit} trials at a time from now on, as many as fit ({before} before)")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores callbacks' state with its own; there is none to keep
