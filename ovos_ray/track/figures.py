"""The plots of the report: inline SVG that follows the page's light or dark colours and prints.

Okabe-Ito colours without yellow and black (distinguishable with any colour vision, on white and on near-black), and
a marker and a dash pattern each, so that a grey print still tells lines apart.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovos_ray.errors import MissingExtraError
from ovos_ray.track.comparison import Row
from ovos_ray.track.study import Run

__all__ = ["COLOURS", "curve_figure", "draw"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_INK, _FAINT = "#010203", "#040506"
"""Stand-ins that become the page's own text and line colours."""


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
        "svg.fonttype": "none", "svg.hashsalt": "ovos", "font.size": 9, "text.color": _INK, "axes.labelcolor": _INK,
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
    # Ids are unique per page only if each figure brings its own.
    text = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace(_INK, "var(--ink)").replace(_FAINT, "var(--line)")


def curve_figure(rows: Sequence[Row], metric: str, label: str, *, most: int = 6) -> str | None:
    """Draws a metric over optimiser steps, one line a configuration, a band of ± one deviation over seeds.

    Args:
        rows: Configurations, best first; those beyond `most` are drawn faintly.
        metric: Which curve.
        label: The axis label.
        most: How many are told apart.

    Returns:
        SVG, or None if no run has the metric.
    """
    drawn = [(row, _band([run for run in row.runs if run.curves.get(metric)], metric)) for row in rows]
    drawn = [(row, band) for row, band in drawn if len(band[0])]
    if not drawn:
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
