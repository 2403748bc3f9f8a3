"""Parallel coordinates: every trial of a search as a line through its settings to its score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.axes import distinct_axes
from ovos_ray.report.numbers.comparison import axis_label
from ovos_ray.report.numbers.rows import Comparison
from ovos_ray.report.pictures.figures import INK, PAPER, RAMP, draw
from ovos_ray.report.runs import SELECTION, parse_json

__all__ = ["search_figure"]

_FEW = 40
"""Trials whose lines may be thick."""
_LABELLED = 8
"""Values of a setting that are all labelled; of more, the first and the last."""


@dataclass(frozen=True)
class _Trial:
    settings: Mapping[str, str]
    score: float
    stopped: bool


def search_figure(comparison: Comparison) -> str | None:
    """Draws every trial as a line through its settings to its J&F (parallel coordinates).

    Finished trials are coloured by their score; trials that a scheduler stopped end dashed at their last validation.
    """
    settings = distinct_axes(comparison.rows, comparison.axes)
    trials = list(_scored_trials(comparison))
    if len(settings) < 2 or len(trials) < 3:
        return None
    heights = {axis: _heights([trial.settings[axis] for trial in trials]) for axis in settings}
    lowest, highest = min(trial.score for trial in trials), max(trial.score for trial in trials)
    width = 1.6 if len(trials) <= _FEW else 0.8

    def share(trial: _Trial) -> float:
        """Where its score lies between the lowest and the highest, in [0, 1]."""
        return (trial.score - lowest) / max(highest - lowest, 1e-9)

    def line(trial: _Trial) -> list[tuple[int, float]]:
        # Within a value the lines spread by score, so that its band shows how the value does.
        spread = 0.12 * (share(trial) - 0.5)
        points = [(x, heights[axis][trial.settings[axis]] + spread) for x, axis in enumerate(settings)]
        return [*points, (len(settings), share(trial))]

    def paint(axes: Any) -> None:
        from matplotlib.collections import LineCollection

        best_on_top = sorted(trials, key=share)
        stopped = [trial for trial in best_on_top if trial.stopped]
        finished = [trial for trial in best_on_top if not trial.stopped]
        colours = [RAMP[round(share(trial) * (len(RAMP) - 1))] for trial in finished]
        style = {"linewidths": width, "alpha": 0.7}
        axes.add_collection(LineCollection([*map(line, stopped)], colors=INK, linestyles="dashed", **style))
        axes.add_collection(LineCollection([*map(line, finished)], colors=colours, linestyles="solid", **style))
        axes.set(xlim=(-0.1, len(settings) + 0.1), ylim=(-0.08, 1.08), yticks=[])
        names = [*map(axis_label, settings), f"{PRIMARY.label} (%)"]
        axes.set_xticks(range(len(names)), names)
        labels = [(len(settings), part, f"{lowest + part * (highest - lowest):.1f}") for part in (0.0, 0.5, 1.0)]
        for column, axis in enumerate(settings):
            values = sorted(heights[axis].items(), key=lambda item: item[1])
            shown = values if len(values) <= _LABELLED else [values[0], values[-1]]
            labels += [(column, height, value) for value, height in shown]
        box = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1}
        for column, height, text in labels:
            axes.annotate(text, (column, height), ha="center", va="center", fontsize=8, bbox=box)
        axes.spines["left"].set_visible(False)

    return draw(paint, width=max(9.0, 1.8 * (len(settings) + 1)), height=4.0)


def _scored_trials(comparison: Comparison) -> Iterator[_Trial]:
    """Yields the trials with a score: the final one or, of a trial that was stopped, that of its last validation."""
    for row in comparison.rows:
        for run in row.runs:
            score, stopped = run.score, run.status == "stopped"
            if score is None and stopped and (curve := run.curves.get(SELECTION, ())):
                score = curve[-1][1]
            if score is not None and math.isfinite(score):
                yield _Trial(row.settings, score, stopped)


def _heights(values: Sequence[str]) -> dict[str, float]:
    """Heights of the values of one axis: numbers by rank of size, words in order of appearance."""
    distinct = list(dict.fromkeys(values))
    if all(isinstance(parse_json(value), int | float) for value in distinct):
        distinct.sort(key=parse_json)
    return {value: (index / (len(distinct) - 1) if len(distinct) > 1 else 0.5) for index, value in enumerate(distinct)}
