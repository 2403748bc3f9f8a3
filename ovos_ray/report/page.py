"""Page of the report: everything computed elsewhere, put into one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from ovos_ray.evaluate.metrics import COMPARED, PRIMARY
from ovos_ray.report.numbers.axes import AxisEffect, distinct_axes
from ovos_ray.report.numbers.comparison import axis_label
from ovos_ray.report.numbers.rows import Comparison, Row
from ovos_ray.report.numbers.significance import Paired, p_text
from ovos_ray.report.numbers.verdict import verdict
from ovos_ray.report.paper.paper import PaperTable
from ovos_ray.report.pictures import figures
from ovos_ray.report.pictures.parallel import search_figure
from ovos_ray.report.pictures.pictures import Gallery
from ovos_ray.report.pictures.traces import Trace
from ovos_ray.report.render import render
from ovos_ray.report.runs import SELECTION
from ovos_ray.track.strategy import EMPTY, SUPERVISED

__all__ = ["Content", "leading_rows", "render_page"]

_MAX_FACET_VALUES = 12
_COMPARED = 5
_DISTINCT = len(figures.COLOURS)


@dataclass(frozen=True)
class Content:
    """What a page shows.

    Attributes:
        comparison: The rows.
        differences: From `against_best`.
        effects: From `axis_effects`.
        tables: From `paper_tables`.
        traces: By configuration, from `traces`.
        overlays: Galleries of predictions beside the truth.
        copying: The strongest case of copying, or none.
        emergence: Masks over training.
        cycles: Training clips there and back.
        exports: File name to text, offered for download.
        traced: The only sequences that have traces; empty: all have them.
    """

    comparison: Comparison
    differences: Mapping[str, Paired]
    effects: tuple[AxisEffect, ...]
    tables: tuple[PaperTable, ...]
    traces: Mapping[str, Mapping[str, Trace]]
    overlays: tuple[Gallery, ...]
    copying: tuple[Gallery, ...]
    emergence: tuple[Gallery, ...]
    cycles: tuple[Gallery, ...]
    exports: Mapping[str, str]
    traced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A plot with its words: what it shows, and how to read it."""

    title: str
    caption: str
    svg: str
    wide: bool = False


def render_page(content: Content) -> str:
    """Returns the HTML.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    comparison = content.comparison
    filters = {
        "p_text": p_text,
        "points": lambda value: f"{_rounded(value):.1f}".replace("-", "−"),
        "signed": lambda value: f"{_rounded(value):+.1f}".replace("-", "−"),
        "duration": _duration,
        "day": _day,
    }
    exports = {
        name: "data:text/plain;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
        for name, text in content.exports.items()
    }
    copy_scores = _copy_scores(content.traces)
    pictures = (*content.overlays, *content.copying, *content.emergence, *content.cycles)
    page = render(
        "report.html",
        filters,
        content=content,
        comparison=comparison,
        verdict=verdict(comparison, content.differences, content.effects),
        scale=_scale(comparison),
        compared=COMPARED,
        primary=PRIMARY,
        facets=_facets(comparison),
        labels={axis: axis_label(axis) for axis in comparison.axes},
        rows=[*comparison.rows, *comparison.baselines],
        figures=_figures(content),
        copy_scores=copy_scores,
        traced=_only(content.traced),
        has_pictures=bool(pictures or copy_scores),
        exports=exports,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", " ", page)  # control characters in names of others


def leading_rows(comparison: Comparison) -> tuple[Row, ...]:
    """Returns the configurations worth a look each: the best of every strategy, the leader first, then a baseline.

    Of a strategy that was tried with the leading network, it is the best with that one, so that what is seen side by
    side differs in the strategy. Full supervision is always among them, last.
    """
    best, supervised = comparison.best, comparison.supervised
    if best is None:
        return tuple(row for row in comparison.baselines if row.finished)[:1]
    rivals = [row for row in comparison.rows if row.finished and row.strategy != SUPERVISED] or [best]
    first: dict[str, Row] = {}
    for row in sorted(rivals, key=lambda row: row.network != best.network):
        first.setdefault(row.strategy, row)
    chosen = [row for row in rivals if row in first.values()]
    # A study without strategies to compare: the best few of what it varies.
    chosen += [row for row in rivals if row not in chosen][: max(0, 2 - len(chosen))]
    full = [] if supervised is None else [supervised]
    baselines = [row for row in comparison.baselines if row.finished]
    return (*chosen[: _COMPARED - len(full)], *full, *baselines[:1])


def _figures(content: Content) -> list[Figure]:
    """Returns the plots for which there is something to plot, in the order of the page."""
    comparison = content.comparison
    leading = leading_rows(comparison)
    trials = [row for row in leading if row.kind == "trial"]
    curves = trials + [row for row in comparison.rows if row not in trials]
    palette = figures.Palette(list(dict.fromkeys(row.label for row in (*leading, *curves, *comparison.baselines))))
    decay = {label: {name: t.truth for name, t in traces.items()} for label, traces in content.traces.items() if traces}
    made: list[Figure] = []

    def add(title: str, caption: str, svg: str | None, *, wide: bool = False) -> None:
        if svg is not None:
            made.append(Figure(title, caption, svg, wide))

    _add_curves(add, curves, palette)
    add(
        "Sequence by sequence",
        "Sorted by the leading configuration (bars). Where markers scatter, the methods fail on different videos.",
        figures.sequence_figure(leading, palette),
    )
    if len(trials) > 1:
        above = "Each dot a sequence; above the line the leader is better. The largest gaps are named."
        add("Leader and runner-up", above, figures.scatter_figure(trials[0], trials[1]))
    add(
        "J over the length of a video",
        f"A falling line is drift: errors that the memory carries on.{_only(content.traced)}",
        figures.decay_figure(decay, palette),
    )
    add(
        f"{PRIMARY.label} against label budget",
        "Mean and standard deviation over seeds; the axis of labels is logarithmic.",
        figures.budget_figure(curves, palette),
    )
    add(
        "Skip schedules in force",
        "The largest distance D between consecutive frames of a clip, over training.",
        figures.schedule_figure(comparison.rows),
    )
    add(
        "All trials",
        "Each line a trial, through its settings to its score: more orange and higher within a setting is better. "
        f"Dashed: stopped early, drawn to its last {PRIMARY.label} on the selection split, not on the reported one.",
        search_figure(comparison),
        wide=True,
    )
    return made


def _add_curves(add: Callable[[str, str, str | None], None], rows: Sequence[Row], palette: figures.Palette) -> None:
    """Adds what was logged while training."""
    words = ["Mean over seeds, band ± one standard deviation."] if any(len(row.runs) > 1 for row in rows) else []
    words += ["Configurations beyond the first six are faint."] if len(rows) > _DISTINCT else []
    selection = f"{PRIMARY.label} (%)"
    add(
        f"{PRIMARY.label} over training",
        " ".join(["On the selection split.", *words]),
        figures.curve_figure(rows, palette, SELECTION, selection),
    )
    equal_frames = (
        "The same, at equal numbers of frames that had a loss: all but the first of a supervised clip, one of a "
        "one-shot clip."
    )
    add(
        f"{PRIMARY.label} over frames with a loss",
        " ".join([equal_frames, *words]),
        figures.curve_figure(rows, palette, SELECTION, selection, by_loss_frames=True),
    )
    supervised = any(row.strategy == SUPERVISED for row in rows)
    full = "; under full supervision, how well later masks are predicted" if supervised else ""
    add(
        "Training IoU",
        " ".join([f"How well the backward propagation reconstructs the first mask{full}.", *words]),
        figures.curve_figure(rows, palette, "train/iou", "IoU"),
    )
    copying = (
        "Overlap of the mask of frame T, from which the backward propagation starts, with the label of frame 0. Near 1 "
        "the network copies instead of following."
    )
    predicted = [row for row in rows if row.strategy != EMPTY]
    add(
        "Copying while training",
        " ".join([copying, *words]),
        figures.curve_figure(predicted, palette, "train/reference_copy", "IoU with the first mask"),
    )


def _scale(comparison: Comparison) -> tuple[float, float]:
    """Ends of the bars in the table: zero, and the highest mean score with its deviation."""
    scores = [s for row in (*comparison.rows, *comparison.baselines) if (s := row.score)]
    return 0.0, max((score.mean + (score.std or 0.0) for score in scores), default=1.0) or 1.0


def _facets(comparison: Comparison) -> dict[str, list[str]]:
    """The axes to filter by, with their values."""
    facets = {}
    for axis in distinct_axes(comparison.rows, comparison.axes):
        values = sorted({row.settings[axis] for row in comparison.rows})
        if 2 <= len(values) <= _MAX_FACET_VALUES:
            facets[axis] = values
    return facets


def _copy_scores(traces: Mapping[str, Mapping[str, Trace]]) -> list[tuple[str, float, float, float]]:
    """(configuration, similarity to the truth, to the first mask, difference), means over sequences."""
    rows = []
    for label, found in traces.items():
        if found:
            truth = sum(t.truth.mean() for t in found.values()) / len(found)
            first = sum(t.first.mean() for t in found.values()) / len(found)
            rows.append((label, float(truth), float(first), float(first - truth)))
    return rows


def _only(traced: Sequence[str]) -> str:
    """Says of which sequences a number is, where it is not of all."""
    return f" Of {', '.join(traced)} alone: masks in a bucket are fetched of what is shown." if traced else ""


def _rounded(value: float) -> float:
    """One decimal, and never a negative zero."""
    return round(value, 1) + 0.0


def _day(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return "–"


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds % 60):02d} s" if minutes else f"{int(seconds)} s"
