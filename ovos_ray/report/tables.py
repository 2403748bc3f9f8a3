"""Tables of the comparison: for the terminal, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ovos_ray.evaluate.metrics import COMPARED
from ovos_ray.evaluate.score.table import csv_text
from ovos_ray.report.numbers.rows import Comparison, Row, Statistic
from ovos_ray.report.numbers.verdict import Verdict
from ovos_ray.report.paper.paper import score_text
from ovos_ray.report.render import markdown_escape, render

__all__ = ["csv_table", "latex_table", "markdown_table", "note_text", "render_table"]

_LABELS = tuple(measure.label for measure in COMPARED)
_HEADER = ("configuration", "strategy", "network", "seeds", *_LABELS, "labels %", "note")
_NOTE_ROWS = 30
_NOTE_CHARACTERS = 7_900
"""MLflow takes tags of 8,000 characters."""


def _cells(row: Row) -> list[str]:
    scores = _scores(row)
    labels = "" if row.label_percent is None else f"{row.label_percent:.3g}"
    seeds = f"{len(row.finished)}/{len(row.runs)}" if len(row.finished) != len(row.runs) else str(len(row.runs))
    return [
        row.label,
        row.strategy,
        row.network,
        seeds if row.kind == "trial" else "",
        *map(score_text, scores),
        labels,
        row.note,
    ]


def _scores(row: Row) -> list[Statistic | None]:
    return [row.statistic(f"final/{measure.key}") for measure in COMPARED]


def _rows(comparison: Comparison) -> Sequence[Row]:
    return (*comparison.rows, *comparison.baselines)


def render_table(comparison: Comparison) -> Table:
    """Returns the comparison for a terminal: trials first, best J&F first, then the baselines.

    Scores are percent, means over the finished seeds.
    """
    table = Table(title=Text(f"{comparison.study.experiment}: percent, mean ± standard deviation over seeds"))
    table.add_column("configuration", min_width=26, overflow="fold")
    for name in ("seeds", *_LABELS, "labels"):
        table.add_column(name, justify="right", no_wrap=True)
    for rows in (comparison.rows, comparison.baselines):
        for row in rows:
            label, _, _, seeds, first, *others, labels, note = _cells(row)
            # Deviations of the others are in the exports; here they would cost the width of a terminal.
            short = [score.partition(" ±")[0] for score in others]
            cell = Text.assemble(label, (f"\n  {note}" if note else "", "dim not bold"))
            cells = [seeds, first, *short, f"{labels} %" if labels else ""]
            table.add_row(cell, *cells, style="bold" if row is comparison.best else None)
        table.add_section()
    return table


def markdown_table(comparison: Comparison) -> str:
    """Returns the comparison as a Markdown table."""
    return _markdown([_HEADER, tuple("---" for _ in _HEADER), *(_cells(row) for row in _rows(comparison))])


def note_text(comparison: Comparison, words: Verdict) -> str:
    """Returns summary and a short table in Markdown, for the description of the sweep's run in MLflow."""
    headline, *sentences = map(markdown_escape, (words.headline, words.certainty, words.supervision, *words.warnings))
    lines = [("configuration", "seeds", *_LABELS, "labels %", "note")]
    lines.append(tuple("---" for _ in lines[0]))
    rows = _rows(comparison)
    for row in rows[:_NOTE_ROWS]:
        label, _, _, *rest = _cells(row)
        lines.append((label, *rest))
    more = f"{len(rows) - _NOTE_ROWS} more rows are in the page. " if len(rows) > _NOTE_ROWS else ""
    where = f"{more}Plots, pictures and the paper's tables: artifact `report/report.html`."
    text = "\n\n".join([f"**{headline}**", *filter(None, sentences), _markdown(lines)])
    return f"{text[: _NOTE_CHARACTERS - len(where)]}\n\n{where}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(map(markdown_escape, line)) + " |\n" for line in lines)


def csv_table(comparison: Comparison) -> str:
    """Returns the comparison as CSV, numbers in full precision, one column for each mean and each deviation."""
    names = [f"{measure.key}_{part}" for measure in COMPARED for part in ("mean", "std")]
    axes = comparison.axes
    lines: list[list[object]] = []
    lines.append(["configuration", "kind", "strategy", "network", *axes, "seeds", *names, "label_percent", "note"])
    for row in _rows(comparison):
        numbers = [value for score in _scores(row) for value in (score and score.mean, score and score.std)]
        settings = [row.settings.get(axis, "") for axis in axes]
        head = [row.label, row.kind, row.strategy, row.network, *settings, len(row.finished)]
        lines.append([*head, *numbers, row.label_percent, row.note])
    return csv_text(lines)


def latex_table(comparison: Comparison) -> str:
    r"""Returns the comparison as a LaTeX `tabular` (booktabs), the best mean of a column in bold."""
    columns = zip(*map(_scores, comparison.rows), strict=True)
    best = [max((score.mean for score in column if score), default=None) for column in columns]
    rows = [(row, _scores(row)) for row in _rows(comparison)]
    return render("comparison.tex", measures=COMPARED, rows=rows, best=best)
