"""Axis effects: which value of a setting wins where all else is equal, over matched pairs of runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ovos_ray.report.numbers.comparison import STRATEGY, axis_label
from ovos_ray.report.numbers.intervals import holm, statistical_tests
from ovos_ray.report.numbers.rows import Comparison, Row
from ovos_ray.track.strategy import SUPERVISED

__all__ = ["AxisEffect", "ValueEffect", "axis_effects", "distinct_axes"]

_YARDSTICKS = ("evaluation.layout", "evaluation.protocol", "evaluation.split")
"""What a score was measured with: another value makes another number, and no better run."""
_MAX_VALUES = 8
"""An axis with more values was searched, not compared."""


@dataclass(frozen=True)
class ValueEffect:
    """One value of an axis.

    Attributes:
        value: The value, as text.
        mean: Mean J&F of all finished runs with it.
        difference: J&F of the best value minus this one, over runs that differ in nothing else; None for the best
            value and where no such pairs exist.
        num_pairs: Those pairs.
        wins: Pairs in which the best value is ahead.
        p: Two-sided paired t-test over the pairs, Holm-corrected for all axes together; None with fewer than three.
    """

    value: str
    mean: float
    difference: float | None = None
    num_pairs: int = 0
    wins: int = 0
    p: float | None = None


@dataclass(frozen=True)
class AxisEffect:
    """What one axis of the study decides.

    Attributes:
        axis: Its key.
        label: Its words.
        values: Its values, best first.
        together: Words of the axes that never change without it; what is said of one is said of all.
    """

    axis: str
    label: str
    values: tuple[ValueEffect, ...]
    together: tuple[str, ...] = ()


def axis_effects(comparison: Comparison) -> tuple[AxisEffect, ...]:
    """Answers, axis by axis, which value wins when all else is equal.

    Values are compared only between runs that agree in every other axis and in the seed, so that a value that was
    tried with weaker networks alone is not blamed for them. The best value is the one that beats most others so. An
    axis that decides another one, as full supervision decides the shards, is compared together with it; axes without
    any such pair are left out.
    """
    finished = [row for row in comparison.rows if row.finished]
    effects = []
    for axis in distinct_axes(finished, comparison.axes):
        if axis in _YARDSTICKS:
            continue
        # Full supervision is compared on its own: no rival, and other labels.
        rows = [row for row in finished if axis != STRATEGY or row.strategy != SUPERVISED]
        effect = _effect(axis, rows, [key for key in comparison.axes if key != axis])
        if any(value.num_pairs for value in effect.values):
            effects.append(effect)
    return _corrected(effects)


def _effect(axis: str, rows: Sequence[Row], other_axes: Sequence[str]) -> AxisEffect:
    """Compares the values of an axis; without any where there are too few or too many of them."""
    varied = [key for key in other_axes if len({row.settings[key] for row in rows}) > 1]
    follow = [key for key in varied if _decides(axis, key, rows)]
    held_equal = [key for key in varied if key not in follow]
    # By value, the scores of its runs; runs of two values that have the same key differ in nothing else.
    scores: dict[str, dict[tuple[object, ...], float]] = defaultdict(dict)
    for row in rows:
        for run in row.finished:
            if run.score is not None:
                scores[row.settings[axis]][(*(row.settings[key] for key in held_equal), run.seed)] = run.score
    values = _ranked(scores) if 2 <= len(scores) <= _MAX_VALUES else ()
    return AxisEffect(axis, axis_label(axis), values, tuple(map(axis_label, follow)))


def _corrected(effects: Sequence[AxisEffect]) -> tuple[AxisEffect, ...]:
    """Corrects the p-values of all axes together (Holm)."""
    corrected = iter(holm([value.p for effect in effects for value in effect.values if value.p is not None]))

    def with_corrected(value: ValueEffect) -> ValueEffect:
        return value if value.p is None else replace(value, p=next(corrected))

    return tuple(replace(effect, values=tuple(map(with_corrected, effect.values))) for effect in effects)


def distinct_axes(rows: Sequence[Row], axes: Sequence[str]) -> list[str]:
    """Returns the axes without those that never change but with an earlier one."""
    distinct: list[str] = []
    for axis in axes:
        if not any(_decides(other, axis, rows) for other in distinct):
            distinct.append(axis)
    return distinct


def _decides(axis: str, other: str, rows: Sequence[Row]) -> bool:
    """Whether the value of one axis tells that of another, as full supervision tells which shards were read."""
    pairs = {(row.settings[axis], row.settings[other]) for row in rows}
    return len(pairs) == len({value for value, _ in pairs})


def _ranked(scores: Mapping[str, Mapping[tuple[object, ...], float]]) -> tuple[ValueEffect, ...]:
    """Returns the values of an axis, the best first, the others compared with it.

    `scores` holds, by value, the scores by the run's other settings: values are compared where these are equal.
    """
    means = {value: statistics.fmean(own.values()) for value, own in scores.items()}

    def differences(one: str, two: str) -> list[float]:
        return [scores[one][key] - scores[two][key] for key in scores[one].keys() & scores[two].keys()]

    def num_beaten(value: str) -> tuple[int, float]:
        others = [differences(value, other) for other in scores if other != value]
        return sum(bool(pairs) and statistics.fmean(pairs) > 0 for pairs in others), means[value]

    best = max(scores, key=num_beaten)
    effects = [ValueEffect(best, means[best])]
    for value in sorted(scores.keys() - {best}, key=lambda value: -means[value]):
        pairs = differences(best, value)
        effects.append(
            ValueEffect(
                value=value,
                mean=means[value],
                difference=statistics.fmean(pairs) if pairs else None,
                num_pairs=len(pairs),
                wins=sum(difference > 0 for difference in pairs),
                p=_t_test(pairs),
            )
        )
    return tuple(effects)


def _t_test(pairs: Sequence[float]) -> float | None:
    if len(pairs) < 3 or len(set(pairs)) == 1:
        return None
    return float(statistical_tests().ttest_1samp(pairs, 0.0).pvalue)
