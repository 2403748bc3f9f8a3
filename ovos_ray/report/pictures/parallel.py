"""Parallel coordinates: every trial of a search as a line through its settings to its score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.axes import distinct_axes
from ovos_ray.report.numbers.comparison import axis_label
from ovos_ray.report.numbers.rows import Comparison
from ovos_ray.report.pictures.figures import INK, PAPER, RAMP, draw
from ovos_ray.report.runs import SELECTION, Run, parse_json

__all__ = ["search_figure"]

_FEW = 40
"""Trials whose lines may be thick."""


def search_figure(comparison: Comparison) -> str | None:
    """Draws every trial as a line through its settings to its J&F (parallel coordinates).

    Finished trials are coloured by their score; trials that a scheduler stopped end dashed at their last validation.
    """
    axes_shown = distinct_axes(comparison.rows, comparison.axes)
    trials: list[tuple[dict[str, str], Run, float]] = []
    for row in comparison.rows:
        for run in row.runs:
            curve = run.curves.get(SELECTION, ())
            score = curve[-1][1] if run.score is None and run.status == "stopped" and curve else run.score
            if score is not None and math.isfinite(score):
                trials.append((dict(row.settings), run, score))
    if len(axes_shown) < 2 or len(trials) < 3:
        return None
    places = {axis: _places([settings[axis] for settings, _, _ in trials]) for axis in axes_shown}

    def paint(axes: Any) -> None:
        from matplotlib.collections import LineCollection

        scores = np.array([score for _, _, score in trials])
        low, high = scores.min(), scores.max()
        width = 1.6 if len(trials) <= _FEW else 0.8
        shades = (scores - low) / max(high - low, 1e-9)
        for stopped in (True, False):
            # Best on top; within a value the lines spread by score, so that its band shows how the value does.
            chosen = [i for i in np.argsort(shades) if (trials[i][1].status == "stopped") is stopped]
            lines = [
                [
                    *((x, places[a][trials[i][0][a]] + 0.12 * (shades[i] - 0.5)) for x, a in enumerate(axes_shown)),
                    (len(axes_shown), shades[i]),
                ]
                for i in chosen
            ]
            colours = [INK if stopped else RAMP[round(shade * (len(RAMP) - 1))] for shade in shades[chosen]]
            style = "dashed" if stopped else "solid"
            axes.add_collection(LineCollection(lines, colors=colours, linestyles=style, linewidths=width, alpha=0.7))
        axes.set(xlim=(-0.1, len(axes_shown) + 0.1), ylim=(-0.08, 1.08), yticks=[])
        names = [*map(axis_label, axes_shown), f"{PRIMARY.label} (%)"]
        axes.set_xticks(range(len(names)), names)
        labels = [(len(axes_shown), share, f"{low + share * (high - low):.1f}") for share in (0.0, 0.5, 1.0)]
        for column, axis in enumerate(axes_shown):
            values = sorted(places[axis].items(), key=lambda item: item[1])
            shown = values if len(values) <= 8 else [values[0], values[-1]]
            labels += [(column, height, value) for value, height in shown]
        box = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1}
        for column, height, text in labels:
            axes.annotate(text, (column, height), ha="center", va="center", fontsize=8, bbox=box)
        axes.spines["left"].set_visible(False)

    return draw(paint, width=max(9.0, 1.8 * (len(axes_shown) + 1)), height=4.0)


def _places(values: Sequence[str]) -> dict[str, float]:
    """Heights of the values of one axis: numbers by rank of size, words in order of appearance."""
    distinct = list(dict.fromkeys(values))
    if all(isinstance(parse_json(value), int | float) for value in distinct):
        distinct.sort(key=parse_json)
    return {value: (index / (len(distinct) - 1) if len(distinct) > 1 else 0.5) for index, value in enumerate(distinct)}
