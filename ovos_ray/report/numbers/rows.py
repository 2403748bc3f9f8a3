"""Rows of a comparison: one a configuration, its seeds summarised, what is missing said."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.runs import Run, Study
from ovos_ray.track.strategy import SUPERVISED

__all__ = ["Comparison", "Row", "Statistic"]


@dataclass(frozen=True)
class Statistic:
    """Mean over seeds; `std` (sample, n-1) is None for a single seed."""

    mean: float
    std: float | None
    num: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic | None:
        """Returns the statistic of the finite values, None if there are none."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None
        return cls(statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None, len(finite))

    def text(self, digits: int = 1) -> str:
        """Returns `81.7 ± 0.4`, or the mean alone for a single seed."""
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


@dataclass(frozen=True)
class Row:
    """One configuration or baseline.

    Attributes:
        label: Short name, unique in the comparison.
        kind: `trial` or `baseline`.
        strategy: Backward strategy, `fully supervised`, `empty reference`, or the baseline's name.
        network: Name of the network; empty for baselines without one.
        settings: Value of every axis of the study, as text.
        runs: All its runs, one per seed, the newest where a seed was run twice.
        superseded: Number of older runs of the same seed left out.
    """

    label: str
    kind: str
    strategy: str
    network: str
    settings: Mapping[str, str]
    runs: tuple[Run, ...]
    superseded: int = 0

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that ended as planned and were scored: the only ones that numbers are made of."""
        return tuple(run for run in self.runs if run.status == "finished" and run.score is not None)

    @property
    def score(self) -> Statistic | None:
        """What the configuration is compared by, over the finished runs."""
        return self.statistic(f"final/{PRIMARY.key}")

    def statistic(self, metric: str) -> Statistic | None:
        """Summarises a final metric over the finished runs, None if there is nothing to summarise."""
        return Statistic.of([run.metrics[metric] for run in self.finished if metric in run.metrics])

    @property
    def loss_frames_per_step(self) -> int | None:
        """Frames whose loss an optimiser step is made of: one of each one-shot clip, all but the first of others."""
        batch, length = (self.runs[0].param(f"data.{key}") for key in ("batch_size", "clip_length"))
        if not (batch.isdecimal() and length.isdecimal()):
            return None
        return int(batch) * (int(length) - 1 if self.strategy == SUPERVISED else 1)

    @property
    def label_percent(self) -> float | None:
        """Label budget in percent, None if unknown or not the same for all runs."""
        budgets = {run.label_percent for run in self.runs}
        return budgets.pop() if len(budgets) == 1 else None

    @property
    def label_counts(self) -> str:
        """The labels behind the percentage, and those it leaves out; empty if unknown or not the same for all runs."""
        words = {_label_words(run.labels) for run in self.runs if run.labels}
        return words.pop() if len(words) == 1 else ""

    @property
    def protocols(self) -> set[str]:
        """By whose rules the runs were scored, where that is known."""
        return {run.param("evaluation.protocol") for run in self.finished} - {"", "auto"}

    @property
    def note(self) -> str:
        """What a reader must know: random initial weights; seeds that failed, still run, were stopped or not scored."""
        counts: dict[str, int] = defaultdict(int)
        for run in self.runs:
            if run.status == "finished":
                counts["not scored"] += run.score is None
            else:
                counts["stopped early" if run.status == "stopped" else run.status] += 1
        parts = [f"{number} {what}" for what, number in counts.items() if number]
        if any(run.param("network.init") == "random" and not run.param("pretrain.recipe") for run in self.runs):
            parts.append("from random weights")
        if len(self.finished) == 1 and self.kind == "trial":
            parts.append("single seed")
        if self.superseded:
            parts.append(f"{self.superseded} older run{'s' if self.superseded > 1 else ''} left out")
        return ", ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """A study as rows.

    Attributes:
        study: Where it comes from.
        axes: Configuration keys in which the trials differ, seeds aside.
        rows: Best mean J&F first, unfinished after, baselines apart.
        baselines: Untrained, copy-the-first-mask, …, best first.
    """

    study: Study
    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]

    @property
    def best(self) -> Row | None:
        """The row with the highest mean J&F, None while nothing is finished.

        Full supervision is what one-shot training is measured against, no rival: it leads only where it is alone.
        """
        finished = [row for row in self.rows if row.finished]
        return next((row for row in finished if row.strategy != SUPERVISED), finished[0] if finished else None)

    @property
    def supervised(self) -> Row | None:
        """The best fully supervised row, of the network of `best` where there is one; None if it is `best` itself."""
        best = self.best
        found = [row for row in self.rows if row.finished and row.strategy == SUPERVISED and row is not best]
        found.sort(key=lambda row: best is not None and row.network != best.network)
        return found[0] if found else None

    def count(self, status: str) -> int:
        """Number of trials in a state."""
        return sum(run.status == status for run in self.study.of_kind("trial"))


def _label_words(counts: Mapping[str, int]) -> str:
    counted = ", ".join(
        f"{use} {counts.get(use, 0):,} of {total:,} frames"
        for use in ("training", "validation")
        if (total := counts.get(f"{use}_frames", 0))
    )
    images = counts.get("pretraining", 0)
    return counted + (f"; not in the percentage: pretraining {images:,} images" if images else "")
