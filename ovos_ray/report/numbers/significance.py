"""Significance of a difference between two configurations: over their seeds, and paired over the sequences."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.intervals import holm, interval, statistical_tests
from ovos_ray.report.numbers.rows import Comparison, Row
from ovos_ray.report.runs import Run

__all__ = ["LEVEL", "Paired", "against_best", "holm_corrected", "p_text", "paired", "sequence_scores"]

LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """One configuration minus another, in points of the score, over the sequences both were scored on.

    Attributes:
        difference: Of the means over objects, as in the table, where both were scored on the same sequences.
        low: Lower end of the 95 % interval, over seeds and sequences; over sequences alone with a single seed.
        high: Upper end.
        p_sequences: Wilcoxon's signed-rank test over sequences, two-sided: of the networks that were trained.
        p_seeds: Of the interval: of networks trained with other seeds, too; None with a single seed.
        p_holm: The larger of both, corrected after Holm for all comparisons made together; None for a single one.
        num_sequences: Sequences compared.
        num_seeds: Seeds, of the configuration that has fewer.
        wins: Sequences on which the first is better.
    """

    difference: float
    low: float
    high: float
    p_sequences: float
    p_seeds: float | None
    p_holm: float | None
    num_sequences: int
    num_seeds: int
    wins: int

    @property
    def p(self) -> float:
        """The larger p: a difference must show over the sequences and over the seeds. Corrected, where it was."""
        return max(self.p_sequences, self.p_seeds or 0.0) if self.p_holm is None else self.p_holm

    @property
    def smallest_p(self) -> float:
        """The smallest p that so few sequences can give, however large the difference."""
        return float(min(1.0, 2.0 ** (1 - self.num_sequences)))


def p_text(p: float) -> str:
    """Returns `p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _by_sequence(run: Run) -> dict[str, list[float]]:
    """The score of every object, by sequence."""
    found: dict[str, list[float]] = defaultdict(list)
    for (sequence, _), values in run.scores.items():
        parts = [values[f"{series}_mean"] for series in PRIMARY.series if f"{series}_mean" in values]
        if len(parts) == len(PRIMARY.series):
            found[sequence].append(sum(parts) / len(parts))
    return found


def sequence_scores(row: Row) -> dict[str, float]:
    """Returns the score by sequence: mean over its objects, then over the seeds that were scored on it."""
    by_sequence: dict[str, list[float]] = defaultdict(list)
    for run in row.finished:
        for sequence, scores in _by_sequence(run).items():
            by_sequence[sequence].append(statistics.fmean(scores))
    return {sequence: statistics.fmean(scores) for sequence, scores in by_sequence.items()}


def paired(first: Row, second: Row) -> Paired | None:
    """Compares two configurations over the sequences both have; None with fewer than two, or by different rules."""
    if len(first.protocols | second.protocols) > 1:
        return None
    runs = [[scores for run in row.finished if (scores := _by_sequence(run))] for row in (first, second)]
    if not all(runs):
        return None
    names = sorted(set.intersection(*(set(scores) for row in runs for scores in row)))
    if len(names) < 2:
        return None
    one, two = (np.array([[statistics.fmean(scores[name]) for name in names] for scores in row]) for row in runs)
    found = interval(one, two, np.array([float(len(runs[0][0][name])) for name in names]))
    # A baseline has no seed that another training could change.
    seeds = min(len(row) for row, of in zip(runs, (first, second), strict=True) if of.kind == "trial" or row is runs[0])
    differences = one.mean(0) - two.mean(0)
    return Paired(
        found.mean,
        found.low,
        found.high,
        _wilcoxon(differences),
        found.p() if seeds > 1 else None,
        None,
        len(names),
        seeds,
        int((differences > 0).sum()),
    )


def _wilcoxon(differences: np.ndarray) -> float:
    return float(statistical_tests().wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def against_best(comparison: Comparison) -> dict[str, Paired]:
    """Compares the best configuration with every other that has scores, by label, Holm-corrected together."""
    best = comparison.best
    found = {
        row.label: result
        for row in (*comparison.rows, *comparison.baselines)
        if best is not None and row is not best and (result := paired(best, row)) is not None
    }
    return dict(zip(found, holm_corrected(tuple(found.values())), strict=True))


def holm_corrected(results: Sequence[Paired]) -> list[Paired]:
    """Returns the comparisons, which were made together, with `p_holm` filled in."""
    return [replace(r, p_holm=p) for r, p in zip(results, holm([r.p for r in results]), strict=True)]
