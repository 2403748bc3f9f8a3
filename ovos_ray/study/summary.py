"""What came of a study: results by configuration, and why trials failed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovos_ray.report.numbers.rows import Statistic
from ovos_ray.run.failure import noted_failure
from ovos_ray.study.price import group_trials
from ovos_ray.study.space import SearchSpace, Trial

__all__ = [
    "Failure",
    "SummaryRow",
    "SweepResult",
    "read_failure",
    "score_of",
    "summarise",
]


@dataclass(frozen=True)
class SummaryRow:
    """The trials of one configuration.

    Attributes:
        name: The configuration.
        scores: By name, over the finished seeds; over the stopped ones where none finished.
        num_trials: Seeds asked for.
        num_finished: Seeds that ran to the end.
        num_stopped: Seeds that the scheduler stopped early.
        num_taken_over: Seeds that another study had trained (`run/same.py`).
        label_percent: Labelled frames in percent of all training frames.
        seconds: Mean time of a trial.
    """

    name: str
    scores: Mapping[str, Statistic]
    num_trials: int
    num_finished: int
    num_stopped: int
    num_taken_over: int
    label_percent: float
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result."""

    name: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left.

    Attributes:
        results: `result.json` of every trial that finished or was stopped early, by name.
        failed: The trials without a result, with the reason.
    """

    results: Mapping[str, Mapping[str, Any]]
    failed: tuple[Failure, ...]


def summarise(
    space: SearchSpace, trials: Sequence[Trial], results: Mapping[str, Mapping[str, Any]]
) -> list[SummaryRow]:
    """Returns one row per configuration with a result, best first by the study's metric. `results` are by trial."""
    rows = []
    for group in group_trials(trials):
        found = [results[trial.name] for trial in group.trials if trial.name in results]
        finished = [result for result in found if not result.get("stopped")]
        counted = finished or found
        if not found:
            continue
        scores = [_scores(result) for result in counted]
        names = dict.fromkeys(name for one in scores for name in one)
        over_seeds = {name: Statistic.of([one[name] for one in scores if name in one]) for name in names}
        rows.append(
            SummaryRow(
                group.name,
                {name: score for name, score in over_seeds.items() if score is not None},
                len(group.trials),
                len(finished),
                len(found) - len(finished),
                sum("taken_over" in result for result in found),
                statistics.fmean(result["label_percent"] for result in found),
                statistics.fmean(result["seconds"] for result in found),
            )
        )
    wanted = space.metric.removeprefix("final/")

    def order(row: SummaryRow) -> tuple[bool, float]:
        score = row.scores.get(wanted)
        return row.num_finished == 0, -score.mean if score is not None else math.inf

    return sorted(rows, key=order)


def _scores(result: Mapping[str, Any]) -> dict[str, float]:
    """Returns the final scores, and the overall one of the last validation."""
    validation = {f"val/{name}": score for name, score in result.get("validation", {}).items() if name in ("jf", "g")}
    return {**validation, **result["scores"]}


def score_of(metric: str, result: Mapping[str, Any]) -> float | None:
    """Returns a metric of a result: `final/jf` from its scores, `val/jf` from the last validation; None without."""
    stage, _, name = metric.partition("/")
    value = result.get("validation" if stage == "val" else "scores", {}).get(name)
    return None if value is None else float(value)


def read_failure(trial: Trial) -> Failure:
    """Returns why a trial without a result failed, as far as it could say."""
    if (noted := noted_failure(trial.config)) is None:
        return Failure(
            trial.name, "it ended without a word: its process or its node was lost", "see Ray's log with --verbose"
        )
    return Failure(trial.name, f"{noted['error']}: {noted['reason']}", noted["remedy"])
