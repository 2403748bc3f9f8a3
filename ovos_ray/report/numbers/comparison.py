"""Runs into rows: one row a configuration, its seeds summarised, what is missing said.

Nothing here reads MLflow; a `Study` goes in, and every number that the report shows comes out.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.roles import settings_of
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.read import Run, Study, parse_json
from ovos_ray.track.strategy import EMPTY, SUPERVISED, strategy_name

__all__ = ["STRATEGY", "Comparison", "Row", "Statistic", "axis_label", "compare", "strategy_of", "value_label"]

_SETTINGS = settings_of(ExperimentConfig)
STRATEGY = "strategy"
"""Stands as an axis for `_STRATEGY_AXES` where more than the backward strategy differs."""
_STRATEGY_AXES = ("method.name", "method.reference", "method.backward")
_AXIS_LABELS = {
    STRATEGY: "strategy",
    "method.backward": "backward strategy",
    "network.name": "network",
    "data.clip_length": "clip length n",
    "data.max_skip": "skip schedule D",
    "pretrain.recipe": "pretraining",
    "method.name": "training",
    "optimizer.learning_rate": "learning rate",
}
_AXIS_SYMBOLS = {"data.clip_length": "n", "data.max_skip": "D", "optimizer.learning_rate": "lr"}
"""In a configuration's own label, where the words would be too long."""


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
    def evaluated_on(self) -> str:
        """Dataset and split of the scores (tag `ovos.evaluated_on`), empty if not said or not the same for all runs."""
        places = {run.tags.get("ovos.evaluated_on", "") for run in self.finished}
        return places.pop() if len(places) == 1 else ""

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


def compare(study: Study) -> Comparison:
    """Groups the trials of a study by configuration and orders them by mean J&F."""
    trials = study.of_kind("trial")
    axes = _axes(trials)
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in trials:
        groups[tuple(_value(run, axis) for axis in axes)].append(run)
    named = _naming_axes(axes, groups)
    rows = []
    for values, runs in groups.items():
        settings = {axis: value_label(axis, value) for axis, value in zip(axes, values, strict=True)}
        kept = _newest_per_seed(runs)
        strategy, network = strategy_of(runs[0]), runs[0].param("network.name")
        parts = [f"{_AXIS_SYMBOLS.get(axis, axis_label(axis))} {settings[axis]}" for axis in named]
        label = " · ".join([part for part in (strategy, network) if part] + parts)
        rows.append(Row(label, "trial", strategy, network, settings, kept, len(runs) - len(kept)))
    return Comparison(study, axes, _ordered(rows), _ordered(_baselines(study)))


def _naming_axes(axes: Sequence[str], groups: Mapping[tuple[str, ...], Sequence[Run]]) -> list[str]:
    """Returns the axes without which two configurations of the same strategy and network would share a name."""
    heads = {values: (strategy_of(runs[0]), runs[0].param("network.name")) for values, runs in groups.items()}
    named: list[str] = []

    def names(chosen: Sequence[str]) -> int:
        places = [axes.index(axis) for axis in chosen]
        return len({(*heads[values], *(values[place] for place in places)) for values in groups})

    for axis in axes:
        if names([*named, axis]) > names(named):
            named.append(axis)
    return named


def _baselines(study: Study) -> list[Row]:
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study.of_kind("baseline"):
        groups[run.tags.get("ovos.baseline", run.name), run.param("network.name")].append(run)
    rows = []
    for (name, network), runs in groups.items():
        kept = _newest_per_seed(runs)
        label = f"{name} · {network}" if network else name
        rows.append(Row(label, "baseline", name, network, {}, kept, len(runs) - len(kept)))
    return rows


def _axes(trials: Sequence[Run]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for run in trials for key in run.params)
    pieces = {key for key in keys if key.rpartition(".")[2].isdigit() and key.rpartition(".")[0] in keys}
    axes = [
        key
        for key in keys
        if _is_axis(key) and key not in pieces and len({_value(run, key) for run in trials} - _silent(key)) > 1
    ]
    if "method.name" in axes or "method.reference" in axes:
        axes = [STRATEGY, *(axis for axis in axes if axis not in _STRATEGY_AXES)]
    # `pretrain` is null where there is none and has parts where there is one: the parts tell it all.
    axes = [axis for axis in axes if axis != "pretrain" or "pretrain.recipe" not in axes]
    known = list(_AXIS_LABELS)
    return tuple(sorted(axes, key=lambda axis: known.index(axis) if axis in known else len(known)))


def _is_axis(key: str) -> bool:
    """Whether runs that differ in it are different configurations; settings of earlier versions always."""
    return key not in _SETTINGS or _SETTINGS[key].role.is_axis


def _value(run: Run, axis: str) -> str:
    """The value of a setting, empty where it has no say, as that for an empty reference where there is none."""
    if axis == STRATEGY:
        return strategy_of(run)
    if axis == "method.empty_objects" and strategy_of(run) != EMPTY:
        return ""
    return run.param(axis)


def _silent(axis: str) -> set[str]:
    """Values that do not make a setting vary: that it has no say elsewhere."""
    return {""} if axis == "method.empty_objects" else set()


def _newest_per_seed(runs: Sequence[Run]) -> tuple[Run, ...]:
    """One run a seed: a finished one before others, then the newest."""
    chosen: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: (run.status == "finished", run.start_ms)):
        chosen[run.run_id if run.seed is None else run.seed] = run
    return tuple(sorted(chosen.values(), key=lambda run: (run.seed is None, run.seed or 0, run.start_ms)))


def _ordered(rows: list[Row]) -> tuple[Row, ...]:
    def rank(row: Row) -> tuple[float, str]:
        statistic = row.score
        return (math.inf if statistic is None else -statistic.mean, row.label)

    return tuple(sorted(rows, key=rank))


def strategy_of(run: Run) -> str:
    """Returns how the run was trained, in the paper's words."""
    method, reference, backward = (run.param(f"method.{key}") for key in ("name", "reference", "backward"))
    return strategy_name(method, reference, backward) or run.name


def axis_label(axis: str) -> str:
    """Returns the words for a configuration key."""
    return _AXIS_LABELS.get(axis, axis.rpartition(".")[2].replace("_", " "))


def value_label(axis: str, text: str) -> str:
    """Returns a parameter's value as a reader wants it: `5→10→15` for a skip schedule, `none` for no pretraining."""
    if not text:
        return "none"
    value = parse_json(text)
    if axis == "data.max_skip" and isinstance(value, list):
        return "→".join(str(skip) for _, skip in value)
    if value is None:
        return "none"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return " + ".join(PurePath(item).name for item in value)
    if isinstance(value, float):
        return f"{value:.3g}"
    if text.startswith("/") or "://" in text:
        return PurePath(text).name
    if axis == "method.name":
        return text.replace("_", "-")
    return text.rpartition(".")[2] if axis == "pretrain.recipe" else text
