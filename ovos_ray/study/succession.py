"""How a population goes on from one generation to the next: who from whom, and with which settings. Pure.

Population-based training as Jaderberg et al. have it ("Population Based Training of Neural Networks", section 4.1.1):
truncation selection, then perturbation. Every draw follows from the seed of the study, the generation and the member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovos_ray.errors import ConfigError
from ovos_ray.seeding import generator
from ovos_ray.study.space import SearchSpace

__all__ = ["FACTORS", "Successor", "successors"]

FACTORS = (0.8, 1.2)
"""What a continuous setting is multiplied by, one or the other."""


@dataclass(frozen=True)
class Successor:
    """How a member goes on.

    Attributes:
        parent: The member, itself or a better one, from whose checkpoint it goes on.
        values: Its settings, by axis or range of the study.
    """

    parent: int
    values: Mapping[str, Any]


def successors(
    space: SearchSpace, generation: int, values: Sequence[Mapping[str, Any]], scores: Sequence[float | None]
) -> list[Successor]:
    """Decides how the members of a population go on.

    The lowest `space.quantile` of the members, and all without a score, go on from a random member of the highest
    quantile with its settings perturbed, unless they are as good; the others go on as they are.

    Args:
        space: The study; with the generation and the member, its `search_seed` decides all draws.
        generation: Number of the generation to come, from 1.
        values: Of each member, by axis or range.
        scores: Of each member, higher is better; None: it diverged.

    Returns:
        One for each member, in order.

    Raises:
        ConfigError: No member has a score.
    """
    ranked = sorted((-score, member) for member, score in enumerate(scores) if score is not None)
    if not ranked:
        raise ConfigError("no member of the population has a score", "look at the failures of the study")
    count = min(math.ceil(space.quantile * len(scores)), len(scores) // 2)
    best = [member for _, member in ranked[:count]]
    order = [member for _, member in ranked] + [member for member, score in enumerate(scores) if score is None]
    behind = {*order[-count:], *order[len(ranked) :]} - {*best}
    choices = {axis: [e for e in entries if e in [v[axis] for v in values]] for axis, entries in space.axes.items()}
    found = []
    for member, score in enumerate(scores):
        donor = best[int(generator(space.search_seed, generation, f"donor of {member}").integers(len(best)))]
        if member not in behind or score == scores[donor]:
            found.append(Successor(member, values[member]))
            continue
        drawn = {
            key: _perturbed(space, choices, key, value, generator(space.search_seed, generation, f"{key} of {member}"))
            for key, value in values[donor].items()
        }
        found.append(Successor(donor, drawn))
    return found


def _perturbed(
    space: SearchSpace, choices: Mapping[str, Sequence[Any]], key: str, value: Any, rng: np.random.Generator
) -> Any:
    """A value drawn anew; or one of `FACTORS` times it, within the range, or its neighbour on an axis: never itself."""
    anew = rng.random() < space.resample
    if key in space.ranges:
        values = space.ranges[key]
        if anew:
            return values.at(float(rng.random()))
        near: list[Any] = [other for factor in FACTORS if (other := values.rounded(factor * value)) != value]
    elif anew:
        near = list(choices[key])
    else:
        place = choices[key].index(value)
        near = [choices[key][i] for i in (place - 1, place + 1) if 0 <= i < len(choices[key])]
    return near[int(rng.integers(len(near)))] if near else value
