"""What is in force at an optimiser step: curricula, as functions of the step and the length of the run."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import TypeVar

from ovos_ray import seeding
from ovos_ray.errors import ConfigError

__all__ = ["curriculum_at", "frame_geometry_at", "is_static_step", "max_skip_at"]

Value = TypeVar("Value", int, float)


def max_skip_at(curriculum: Sequence[tuple[float, int]], step: int, steps: int) -> int:
    """Returns D in force at an optimiser step."""
    return curriculum_at("data.max_skip", curriculum, step, steps)


def curriculum_at(key: str, curriculum: Sequence[tuple[float, Value]], step: int, steps: int) -> Value:
    """Returns the value in force at an optimiser step: that of the last entry whose fraction of `steps` is reached.

    Messages name the setting by its `key`.

    Raises:
        ConfigError: It is no curriculum.
    """
    fractions = [fraction for fraction, _ in curriculum]
    if not fractions or fractions[0] != 0.0 or fractions != sorted(fractions):
        raise ConfigError(
            f"{key} = {list(curriculum)} is not a curriculum",
            "give (fraction, value) pairs with rising fractions, the first at 0, such as [[0, 5], [0.1, 10]]",
        )
    # Compared in steps: 0.3 * 10 is not 3 in binary, and a boundary should not depend on that.
    begins = [round(fraction * steps) for fraction in fractions]
    return curriculum[bisect.bisect_right(begins, step) - 1][1]


_PHASES = 1024


def is_static_step(curriculum: Sequence[tuple[float, float]], seed: int, step: int, steps: int) -> bool:
    """Whether an optimiser step trains on clips synthesised from labelled frames; the same on all workers.

    Such steps lie as evenly as can be, with a phase drawn from the seed: a share of 1/4 is every fourth step.

    Raises:
        ConfigError: It is no curriculum, or a share is not in 0 … 1.
    """
    if not curriculum:
        return False
    share = curriculum_at("data.static_share", curriculum, step, steps)
    if not all(0 <= share <= 1 for _, share in curriculum):
        raise ConfigError(f"data.static_share = {list(curriculum)} is out of range", "give shares in 0 … 1")
    phase = int(seeding.generator(seed, 0, "static steps").integers(_PHASES)) / _PHASES
    return math.floor((step + 1) * share + phase) > math.floor(step * share + phase)


def frame_geometry_at(until: float, step: int, steps: int) -> bool:
    """Whether an optimiser step comes before the fraction `until` of `steps`, rounded to a whole step."""
    return step < round(until * steps)
