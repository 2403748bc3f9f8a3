"""How sure a difference is: paired over sequences for two configurations, matched for the values of one axis."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovos_ray.errors import MissingExtraError
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.comparison import STRATEGY, Comparison, Row, axis_label
from ovos_ray.seeding import generator
from ovos_ray.track.strategy import SUPERVISED

__all__ = [
    "AxisEffect",
    "Paired",
    "ValueEffect",
    "against_best",
    "axis_effects",
    "distinct_axes",
    "holm_corrected",
    "paired",
    "sequence_scores",
]

_RESAMPLES = 2000
_MAX_VALUES = 8
"""An axis with more values was searched, not compared."""


@dataclass(frozen=True)
class Paired:
    """J&F of one configuration minus that of another, over the sequences both were scored on.

    Attributes:
        difference: Mean difference in points of J&F; every sequence counts once.
        low: Lower end of the 95 % bootstrap interval over sequences.
        high: Upper end.
        p: Two-sided Wilcoxon signed-rank test over sequences.
        p_holm: The same, corrected after Holm for all comparisons made together; None for a single one.
        num_sequences: Sequences compared.
        wins: Sequences on which the first is better.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float | None
    num_sequences: int
    wins: int

    @property
    def smallest_p(self) -> float:
        """The smallest p that so few sequences can give, however large the difference."""
        return float(min(1.0, 2.0 ** (1 - self.num_sequences)))


def sequence_scores(row: Row) -> dict[str, float]:
    """Returns J&F by sequence: mean of J and F over its objects, then over the seeds that were scored on it."""
    by_sequence: dict[str, list[float]] = defaultdict(list)
    for run in row.finished:
        by_object: dict[str, list[float]] = defaultdict(list)
        for (sequence, _), values in run.scores.items():
            parts = [values[f"{series}_mean"] for series in PRIMARY.series if f"{series}_mean" in values]
            if len(parts) == len(PRIMARY.series):
                by_object[sequence].append(sum(parts) / len(parts))
        for sequence, scores in by_object.items():
            by_sequence[sequence].append(statistics.fmean(scores))
    return {sequence: statistics.fmean(scores) for sequence, scores in by_sequence.items()}


def paired(first: Row, second: Row) -> Paired | None:
    """Compares two configurations over the sequences both have; None with fewer than two."""
    one, two = sequence_scores(first), sequence_scores(second)
    names = sorted(one.keys() & two.keys())
    if len(names) < 2:
        return None
    differences = np.array([one[name] - two[name] for name in names])
    rng = generator(0, len(names), "bootstrap over sequences")
    means = differences[rng.integers(0, len(names), (_RESAMPLES, len(names)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    p = _wilcoxon(differences)
    wins = int((differences > 0).sum())
    return Paired(float(differences.mean()), float(low), float(high), p, None, len(names), wins)


def _wilcoxon(differences: np.ndarray) -> float:
    try:
        from scipy.stats import wilcoxon
    except ImportError as error:
        raise MissingExtraError("scipy", "report", "testing differences") from error
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences).pvalue)


def against_best(comparison: Comparison) -> dict[str, Paired]:
    """Compares the best configuration with every other that has scores, by label, Holm-corrected together."""
    best = comparison.best
    if best is None:
        return {}
    found = {
        row.label: result
        for row in (*comparison.rows, *comparison.baselines)
        if row is not best and (result := paired(best, row)) is not None
    }
    return dict(zip(found, holm_corrected(tuple(found.values())), strict=True))


def holm_corrected(results: Sequence[Paired]) -> list[Paired]:
    """Returns the comparisons, which were made together, with `p_holm` filled in."""
    return [replace(r, p_holm=p) for r, p in zip(results, _holm([r.p for r in results]), strict=True)]


def _holm(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda index: values[index])
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class ValueEffect:
    """One value of an axis.

    Attributes:
        value: The value, as text.
        mean: Mean J&F of all finished runs with it.
        num_runs: Number of those runs.
        difference: J&F of the best value minus this one, over runs that differ in nothing else; None for the best
            value and where no such pairs exist.
        num_pairs: Those pairs.
        wins: Pairs in which the best value is ahead.
        p: Two-sided paired t-test over the pairs; None with fewer than three.
    """

    value: str
    mean: float
    num_runs: int
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
        # Full supervision is compared on its own: no rival, and other labels.
        rows = [row for row in finished if axis != STRATEGY or row.strategy != SUPERVISED]
        others = [key for key in comparison.axes if key != axis and len({row.settings[key] for row in rows}) > 1]
        follow = [key for key in others if _decides(axis, key, rows)]
        blocks: dict[str, dict[tuple[object, ...], float]] = defaultdict(dict)
        for row in rows:
            rest = tuple(row.settings[key] for key in others if key not in follow)
            for run in row.finished:
                if run.score is not None:
                    blocks[row.settings[axis]][(*rest, run.seed)] = run.score
        if 2 <= len(blocks) <= _MAX_VALUES:
            values = _ranked(blocks)
            if any(value.num_pairs for value in values):
                effects.append(AxisEffect(axis, axis_label(axis), values, tuple(map(axis_label, follow))))
    return tuple(effects)


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


def _ranked(blocks: Mapping[str, Mapping[tuple[object, ...], float]]) -> tuple[ValueEffect, ...]:
    means = {value: statistics.fmean(scores.values()) for value, scores in blocks.items()}

    def differences(one: str, two: str) -> list[float]:
        return [blocks[one][key] - blocks[two][key] for key in blocks[one].keys() & blocks[two].keys()]

    def beaten(value: str) -> tuple[int, float]:
        others = [differences(value, other) for other in blocks if other != value]
        return sum(bool(pairs) and statistics.fmean(pairs) > 0 for pairs in others), means[value]

    best = max(blocks, key=beaten)
    effects = [ValueEffect(best, means[best], len(blocks[best]))]
    for value in sorted(blocks.keys() - {best}, key=lambda value: -means[value]):
        pairs = differences(best, value)
        effects.append(
            ValueEffect(
                value,
                means[value],
                len(blocks[value]),
                statistics.fmean(pairs) if pairs else None,
                len(pairs),
                sum(difference > 0 for difference in pairs),
                _t_test(pairs),
            )
        )
    return tuple(effects)


def _t_test(pairs: Sequence[float]) -> float | None:
    if len(pairs) < 3 or len(set(pairs)) == 1:
        return None
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(pairs, 0.0).pvalue)
