"""Figures of the report: inline SVG that follows the page's light or dark colours and prints.

Okabe-Ito colours without yellow and black (distinguishable with any colour vision, on white and on near-black), and
a marker and a dash pattern each, so that a grey print still tells lines apart. A configuration looks the same in all
plots.
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
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.comparison import skip_schedule
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.numbers.significance import sequence_scores
from ovos_ray.report.runs import Run, parse_json

__all__ = [
    "COLOURS",
    "FAINT",
    "INK",
    "PAPER",
    "RAMP",
    "Palette",
    "budget_figure",
    "curve_figure",
    "decay_figure",
    "draw",
    "scatter_figure",
    "schedule_figure",
    "sequence_figure",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_TOLD_APART = len(COLOURS)
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
"""Stand-ins that become the page's colours of text, lines and background; COLOURS become its `--plot0`, `--plot1`, …"""
RAMP = tuple(f"#0a0b{level:02x}" for level in range(9))
"""Stand-ins for scores from the lowest to the highest; they become mixtures of the page's first two plot colours."""
_MOST_SEQUENCES = 40
_figures = itertools.count()


class Palette:
    """Colour, marker and dash pattern of every configuration.

    Args:
        labels: The configurations, those that matter most first; beyond the sixth, colours repeat with other markers.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._places = {label: index for index, label in enumerate(labels)}

    def style(self, label: str) -> dict[str, Any]:
        """Returns what matplotlib's `plot` needs."""
        index = self._places[label]
        return {
            "color": COLOURS[index % len(COLOURS)],
            "marker": _MARKERS[index % len(_MARKERS)],
            # Shifted by one each round, so that a colour that comes again comes with another pattern.
            "linestyle": _DASHES[(index + index // len(COLOURS)) % len(_DASHES)],
        }


def draw(paint: Callable[[Any], None], *, width: float = 6.4, height: float = 3.6) -> str:
    """Returns what `paint` draws on a matplotlib axes, `width` x `height` inches, as an SVG element.

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
        "text.color": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FAINT, "grid.color": FAINT, "axes.grid": True,
        "grid.alpha": 0.5, "grid.linewidth": 0.5, "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none",
        "text.parse_math": False,  # names are no formulas
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
    for level, stand_in in enumerate(RAMP):
        share = 100 * level / (len(RAMP) - 1)
        text = text.replace(stand_in, f"color-mix(in oklab, var(--plot1) {share:g}%, var(--plot0))")
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--line)").replace(PAPER, "var(--paper)")


def curve_figure(
    rows: Sequence[Row], palette: Palette, metric: str, label: str, *, by_loss_frames: bool = False
) -> str | None:
    """Draws a metric over optimiser steps, one line a configuration, a band of ± one deviation over seeds.

    Args:
        rows: Configurations, best first; those beyond the colours are drawn faintly.
        palette: What they look like.
        metric: Which curve.
        label: The axis label.
        by_loss_frames: Draw over the frames that had a loss instead of over steps.

    Returns:
        SVG, or None if no run has the metric at two steps.
    """
    drawn = [(row, _band([run for run in row.runs if run.curves.get(metric)], metric)) for row in rows]
    drawn = [(row, band) for row, band in drawn if len(band[0])]
    if by_loss_frames:
        per_step = [(row, row.loss_frames_per_step, band) for row, band in drawn]
        if len({number for _, number, _ in per_step}) < 2:
            return None
        drawn = [(row, (steps * number, mean, std)) for row, number, (steps, mean, std) in per_step if number]
    if all(len(steps) < 2 for _, (steps, _, _) in drawn):
        return None

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for _, (steps, mean, _) in drawn[_TOLD_APART:]:
            axes.plot(steps, mean, color=FAINT, linewidth=0.8, zorder=1)
        for row, (steps, mean, std) in drawn[:_TOLD_APART]:
            style = palette.style(row.label)
            axes.plot(steps, mean, label=row.label, markevery=max(1, len(steps) // 8), markersize=4, **style)
            if np.any(std > 0):
                axes.fill_between(steps, mean - std, mean + std, color=style["color"], alpha=0.18, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.set_xlabel("frames that had a loss" if by_loss_frames else "optimiser step")
        axes.set_ylabel(label)
        _legend(axes)

    return draw(paint, height=3.6 + 0.1 * min(len(drawn), _TOLD_APART))


def budget_figure(rows: Sequence[Row], palette: Palette) -> str | None:
    """Draws J&F against label budget, a point a configuration, the first ones named; None unless two budgets occur."""
    points = [
        (row, budget, score)
        for row in rows
        if (budget := row.label_percent) is not None and (score := row.score) is not None
    ]
    budgets = sorted({budget for _, budget, _ in points})
    if len(budgets) < 2:
        return None

    def paint(axes: Any) -> None:
        from matplotlib.ticker import FixedLocator, NullLocator

        faint = {"color": FAINT, "marker": "o", "markersize": 4}
        for number, (row, budget, score) in reversed(list(enumerate(points))):
            style = {**(palette.style(row.label) if number < _TOLD_APART else faint), "linestyle": "none"}
            label = row.label if number < _TOLD_APART else None
            axes.errorbar(budget, score.mean, yerr=score.std or None, label=label, capsize=2, **style)
        axes.set_xscale("log")
        if len(budgets) <= 6:
            axes.xaxis.set_major_locator(FixedLocator(budgets))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g} %")
        axes.set_xlabel("labelled frames, of all frames")
        axes.set_ylabel(f"{PRIMARY.label} (%)")
        handles = axes.get_legend_handles_labels()[0]
        _legend(axes, handles[::-1])

    return draw(paint, height=3.6 + 0.1 * min(len(points), _TOLD_APART))


def sequence_figure(rows: Sequence[Row], palette: Palette) -> str | None:
    """Draws J&F of each sequence, sorted by the first configuration; of very many, the worst."""
    drawn = [(row, scores) for row in rows if (scores := sequence_scores(row))]
    if not drawn:
        return None
    names = sorted(drawn[0][1], key=lambda name: drawn[0][1][name])[:_MOST_SEQUENCES]

    def paint(axes: Any) -> None:
        places = np.arange(len(names))
        first = [drawn[0][1][name] for name in names]
        handles: list[Any] = [
            axes.barh(
                places, first, color=palette.style(drawn[0][0].label)["color"], alpha=0.35, height=0.7,
                label=drawn[0][0].label,
            )
        ]  # fmt: skip
        for row, scores in drawn[1:]:
            style = {**palette.style(row.label), "linestyle": "none"}
            values = [scores.get(name, math.nan) for name in names]
            handles += axes.plot(values, places, markersize=5, label=row.label, **style)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{PRIMARY.label} (%)")
        _legend(axes, handles)

    return draw(paint, height=max(2.6, 0.19 * len(names) + 1.3))


def scatter_figure(first: Row, second: Row) -> str | None:
    """Draws every sequence by its J&F under two configurations; above the diagonal the first is better."""
    one, two = sequence_scores(first), sequence_scores(second)
    names = sorted(one.keys() & two.keys())
    if len(names) < 2:
        return None

    def paint(axes: Any) -> None:
        x, y = np.array([two[n] for n in names]), np.array([one[n] for n in names])
        axes.axline((0, 0), slope=1, color=INK, linewidth=0.7, linestyle=":")
        axes.plot(x, y, "o", color=COLOURS[0], markersize=5, alpha=0.8)
        low, high = min(x.min(), y.min()) - 3, max(x.max(), y.max()) + 3
        named: list[int] = []
        for index in np.argsort(-np.abs(y - x))[:8].tolist():
            # Names of dots close to each other would overlap.
            if len(named) < 5 and all(abs(y[index] - y[other]) > (high - low) / 20 for other in named):
                axes.annotate(names[index], (x[index], y[index]), xytext=(4, 3), textcoords="offset points", fontsize=7)
                named.append(index)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel(f"{PRIMARY.label}, " + textwrap.fill(second.label, 40))
        axes.set_ylabel(f"{PRIMARY.label}, " + textwrap.fill(first.label, 40))

    return draw(paint, width=4.6, height=4.4)


def schedule_figure(rows: Sequence[Row]) -> str | None:
    """Draws the curriculum of the largest skip D, one line a schedule in use; None if D is one constant."""
    schedules: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if schedule := skip_schedule(parse_json(row.runs[0].param("data.max_skip") or "null")):
            schedules.setdefault("→".join(str(skip) for _, skip in schedule), schedule)
    if not schedules or len(schedules) == 1 == len(next(iter(schedules.values()))):
        return None

    def paint(axes: Any) -> None:
        for index, (name, schedule) in enumerate(list(schedules.items())[:6]):
            x = [100 * start for start, _ in schedule] + [100.0]
            y = [skip for _, skip in schedule] + [schedule[-1][1]]
            style = {"color": COLOURS[index % len(COLOURS)], "linestyle": _DASHES[index % len(_DASHES)]}
            axes.plot(x, y, drawstyle="steps-post", label=name, linewidth=2, **style)
        axes.set_xlabel("training done (%)")
        axes.set_ylabel("largest skip D (frames)")
        axes.set_ylim(bottom=0)
        _legend(axes)

    return draw(paint, height=2.9)


def decay_figure(traces: Mapping[str, Mapping[str, np.ndarray]], palette: Palette) -> str | None:
    """Draws J over normalised time, averaged over sequences.

    Args:
        traces: By configuration, by sequence: J in percent of every scored frame, in order of time.
        palette: What they look like.
    """
    if not traces:
        return None
    grid = np.linspace(0, 1, 21)

    def paint(axes: Any) -> None:
        for label, sequences in traces.items():
            curves = [np.interp(grid, np.linspace(0, 1, len(j)), j) for j in sequences.values() if len(j) > 1]
            axes.plot(100 * grid, np.mean(curves, 0), label=label, markevery=4, markersize=4, **palette.style(label))
        axes.set_xlabel("time (% of the sequence)")
        axes.set_ylabel("J (%)")
        _legend(axes)

    return draw(paint, height=4.0)


def _legend(axes: Any, handles: Sequence[Any] | None = None) -> None:
    """Beneath the plot, where no line runs through it."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    columns = 3 if longest < 22 else 2 if longest < 40 else 1
    axes.figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=columns)


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
