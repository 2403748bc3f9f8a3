"""The plots of the report: inline SVG that follows the page's light or dark colours and prints.

Okabe-Ito colours without yellow and black (distinguishable with any colour vision, on white and on near-black), and
a marker and a dash pattern each, so that a grey print still tells lines apart.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovos_ray.errors import MissingExtraError
from ovos_ray.track.comparison import Comparison, Row, axis_label
from ovos_ray.track.significance import sequence_scores
from ovos_ray.track.study import Run, parse_json

__all__ = [
    "COLOURS",
    "budget_figure",
    "curve_figure",
    "decay_figure",
    "draw",
    "line_style",
    "scatter_figure",
    "schedule_figure",
    "search_figure",
    "sequence_figure",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_INK, _FAINT, _PAPER = "#010203", "#040506", "#070809"
"""Stand-ins that become the page's colours of text, lines and background; COLOURS become its `--plot0`, `--plot1`, …"""
_MOST_SEQUENCES = 40
_figures = itertools.count()


def draw(paint: Callable[[Any], None], *, width: float = 6.4, height: float = 3.6) -> str:
    """Returns what `paint` draws on a matplotlib axes as an SVG element.

    Args:
        paint: Called with the axes.
        width: Width in inches.
        height: Height in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "drawing the report's plots") from error
    style = {
        "svg.fonttype": "none", "svg.hashsalt": f"ovos{next(_figures)}", "font.size": 9,
        "text.color": _INK, "axes.labelcolor": _INK,
        "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": _FAINT, "grid.color": _FAINT, "axes.grid": True,
        "grid.alpha": 0.5, "grid.linewidth": 0.5, "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # Names of groups repeat from figure to figure; only clip paths and markers are referred to, and theirs are salted.
    text = re.sub(r' id="[a-zA-Z]+_[\d_]+"', "", text)
    opening = rf'<svg viewBox="\1" style="max-width:{width:.1f}in">'
    text = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', opening, text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for index, colour in enumerate(COLOURS):
        text = text.replace(colour.lower(), f"var(--plot{index})")
    return text.replace(_INK, "var(--ink)").replace(_FAINT, "var(--line)").replace(_PAPER, "var(--paper)")


def curve_figure(rows: Sequence[Row], metric: str, label: str, *, most: int = 6) -> str | None:
    """Draws a metric over optimiser steps, one line a configuration, a band of ± one deviation over seeds.

    Args:
        rows: Configurations, best first; those beyond `most` are drawn faintly.
        metric: Which curve.
        label: The axis label.
        most: How many are told apart.

    Returns:
        SVG, or None if no run has the metric at two steps.
    """
    drawn = [(row, _band([run for run in row.runs if run.curves.get(metric)], metric)) for row in rows]
    drawn = [(row, band) for row, band in drawn if len(band[0])]
    if all(len(steps) < 2 for _, (steps, _, _) in drawn):
        return None

    def paint(axes: Any) -> None:
        for _, (steps, mean, _) in drawn[most:]:
            axes.plot(steps, mean, color=_FAINT, linewidth=0.8, zorder=1)
        for index, (row, (steps, mean, std)) in enumerate(drawn[:most]):
            style = line_style(index)
            axes.plot(steps, mean, label=row.label, markevery=max(1, len(steps) // 8), markersize=4, **style)
            if np.any(std > 0):
                axes.fill_between(steps, mean - std, mean + std, color=style["color"], alpha=0.18, linewidth=0)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)

    return draw(paint)


def budget_figure(rows: Sequence[Row]) -> str | None:
    """Draws J&F against label budget, one point a configuration; None unless two budgets occur."""
    points = [
        (row, budget, score)
        for row in rows
        if (budget := row.label_percent) is not None and (score := row.statistic("final/jf")) is not None
    ]
    if len({budget for _, budget, _ in points}) < 2:
        return None

    def paint(axes: Any) -> None:
        groups = sorted({(row.network, row.strategy == "fully supervised") for row, _, _ in points})
        for index, (network, supervised) in enumerate(groups):
            style = {**line_style(index), "linestyle": "none"}
            chosen = [p for p in points if (p[0].network, p[0].strategy == "fully supervised") == (network, supervised)]
            axes.errorbar(
                [budget for _, budget, _ in chosen],
                [score.mean for _, _, score in chosen],
                yerr=[score.std or 0.0 for _, _, score in chosen],
                label=f"{network}, {'fully supervised' if supervised else 'one-shot'}",
                capsize=2,
                **style,
            )
        axes.set_xscale("log")
        axes.set_xlabel("labelled frames (% of all frames)")
        axes.set_ylabel("J&F (%)")
        axes.legend(fontsize=8)

    return draw(paint)


def sequence_figure(rows: Sequence[Row]) -> str | None:
    """Draws J&F of each sequence, sorted by the first configuration; of very many, the worst."""
    drawn = [(row, scores) for row in rows if (scores := sequence_scores(row))]
    if not drawn:
        return None
    names = sorted(drawn[0][1], key=lambda name: drawn[0][1][name])[:_MOST_SEQUENCES]

    def paint(axes: Any) -> None:
        places = np.arange(len(names))
        first = [drawn[0][1][name] for name in names]
        handles: list[Any] = [
            axes.barh(places, first, color=COLOURS[0], alpha=0.35, height=0.7, label=drawn[0][0].label)
        ]
        for index, (row, scores) in enumerate(drawn[1:], 1):
            style = {**line_style(index), "linestyle": "none"}
            values = [scores.get(name, math.nan) for name in names]
            handles += axes.plot(values, places, markersize=5, label=row.label, **style)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("J&F (%)")
        columns = 2 if max(len(row.label) for row, _ in drawn) < 30 else 1
        axes.figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=columns)

    return draw(paint, height=max(2.6, 0.19 * len(names) + 1.3))


def scatter_figure(first: Row, second: Row) -> str | None:
    """Draws every sequence by its J&F under two configurations; above the diagonal the first is better."""
    one, two = sequence_scores(first), sequence_scores(second)
    names = sorted(one.keys() & two.keys())
    if len(names) < 2:
        return None

    def paint(axes: Any) -> None:
        x, y = np.array([two[n] for n in names]), np.array([one[n] for n in names])
        axes.axline((0, 0), slope=1, color=_INK, linewidth=0.7, linestyle=":")
        axes.plot(x, y, "o", color=COLOURS[0], markersize=5, alpha=0.8)
        low, high = min(x.min(), y.min()) - 3, max(x.max(), y.max()) + 3
        named: list[int] = []
        for index in np.argsort(-np.abs(y - x))[:8].tolist():
            # Names of dots close to each other would overlap.
            if len(named) < 5 and all(abs(y[index] - y[other]) > (high - low) / 20 for other in named):
                axes.annotate(names[index], (x[index], y[index]), xytext=(4, 3), textcoords="offset points", fontsize=7)
                named.append(index)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel("J&F, " + textwrap.fill(second.label, 40))
        axes.set_ylabel("J&F, " + textwrap.fill(first.label, 40))

    return draw(paint, width=4.6, height=4.4)


def search_figure(comparison: Comparison) -> str | None:
    """Draws every trial as a line through its settings to its J&F (parallel coordinates).

    Finished trials are coloured by their score; trials that a scheduler stopped end dashed at their last validation.
    """
    axes_shown = list(comparison.axes)
    trials: list[tuple[dict[str, str], Run, float]] = []
    for row in comparison.rows:
        for run in row.runs:
            curve = run.curves.get("val/jf", ())
            score = run.metrics.get("final/jf", curve[-1][1] if run.status == "stopped" and curve else math.nan)
            if math.isfinite(score):
                trials.append((dict(row.settings), run, score))
    if len(axes_shown) < 2 or len(trials) < 3:
        return None
    places = {axis: _places([settings[axis] for settings, _, _ in trials]) for axis in axes_shown}

    def paint(axes: Any) -> None:
        from matplotlib import colormaps
        from matplotlib.collections import LineCollection

        scores = np.array([score for _, _, score in trials])
        low, high = scores.min(), scores.max()
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
            colours = "#888888" if stopped else colormaps["plasma"](0.1 + 0.75 * shades[chosen])
            style = "dashed" if stopped else "solid"
            axes.add_collection(LineCollection(lines, colors=colours, linestyles=style, linewidths=0.8, alpha=0.7))
        axes.set(xlim=(-0.1, len(axes_shown) + 0.1), ylim=(-0.08, 1.08), yticks=[])
        axes.set_xticks(range(len(axes_shown) + 1), [*(axis_label(axis) for axis in axes_shown), "J&F (%)"])
        labels = [(len(axes_shown), share, f"{low + share * (high - low):.1f}") for share in (0.0, 0.5, 1.0)]
        for column, axis in enumerate(axes_shown):
            values = sorted(places[axis].items(), key=lambda item: item[1])
            shown = values if len(values) <= 8 else [values[0], values[-1]]
            labels += [(column, height, value) for value, height in shown]
        box = {"facecolor": _PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1}
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


def schedule_figure(rows: Sequence[Row]) -> str | None:
    """Draws the curriculum of the largest skip D, one line a schedule in use; None if D is one constant."""
    schedules: dict[str, list[list[float]]] = {}
    for row in rows:
        schedule = parse_json(row.runs[0].param("data.max_skip") or "null")
        if isinstance(schedule, list):
            schedules.setdefault("→".join(str(skip) for _, skip in schedule), schedule)
    if not schedules or len(schedules) == 1 == len(next(iter(schedules.values()))):
        return None

    def paint(axes: Any) -> None:
        for index, (name, schedule) in enumerate(list(schedules.items())[:6]):
            x = [100 * start for start, _ in schedule] + [100.0]
            y = [skip for _, skip in schedule] + [schedule[-1][1]]
            style = {**line_style(index), "marker": ""}
            axes.plot(x, y, drawstyle="steps-post", label=name, linewidth=2, **style)
        axes.set_xlabel("training done (%)")
        axes.set_ylabel("largest skip D (frames)")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)

    return draw(paint, height=2.6)


def decay_figure(traces: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
    """Draws J over normalised time, averaged over sequences.

    Args:
        traces: By configuration, by sequence: J in percent of every scored frame, in order of time.
    """
    if not traces:
        return None
    grid = np.linspace(0, 1, 21)

    def paint(axes: Any) -> None:
        for index, (label, sequences) in enumerate(traces.items()):
            curves = [np.interp(grid, np.linspace(0, 1, len(j)), j) for j in sequences.values() if len(j) > 1]
            axes.plot(100 * grid, np.mean(curves, 0), label=label, markevery=4, markersize=4, **line_style(index))
        axes.set_xlabel("time (% of the sequence)")
        axes.set_ylabel("J (%)")
        axes.legend(fontsize=8)

    return draw(paint)


def line_style(index: int) -> dict[str, Any]:
    """Returns colour, marker and dash pattern of the n-th line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[index % len(_DASHES)],
    }


def _band(runs: Sequence[Run], metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation over the seeds at every step that any run reports; runs that ended early leave the mean."""
    by_step: Mapping[int, list[float]] = defaultdict(list)
    for run in runs:
        for step, value in run.curves[metric]:
            by_step[step].append(value)
    steps = sorted(by_step)
    mean = np.array([np.nanmean(by_step[s]) if not np.all(np.isnan(by_step[s])) else np.nan for s in steps])
    std = np.array([np.nanstd(by_step[s], ddof=1) if len(by_step[s]) > 1 else 0.0 for s in steps])
    return np.array(steps), mean, std
