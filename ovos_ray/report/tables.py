"""The comparison as a table: for the terminal, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ovos_ray.report.numbers.comparison import Comparison, Row
from ovos_ray.report.numbers.verdict import Verdict

__all__ = ["csv_table", "latex_escape", "latex_table", "markdown_table", "note_text", "render_table"]

_SCORES = (("final/jf", "J&F"), ("final/j", "J"), ("final/f", "F"))
_HEADER = ("configuration", "strategy", "network", "seeds", *(name for _, name in _SCORES), "labels %", "note")
_NOTE_ROWS = 30
"""MLflow cuts tags at 8,000 characters."""


def _cells(row: Row) -> list[str]:
    scores = [row.statistic(metric) for metric, _ in _SCORES]
    labels = "" if row.label_percent is None else f"{row.label_percent:.3g}"
    seeds = f"{len(row.finished)}/{len(row.runs)}" if len(row.finished) != len(row.runs) else str(len(row.runs))
    return [
        row.label,
        row.strategy,
        row.network,
        seeds if row.kind == "trial" else "",
        *("–" if score is None else score.text() for score in scores),
        labels,
        row.note,
    ]


def _rows(comparison: Comparison) -> Sequence[Row]:
    return (*comparison.rows, *comparison.baselines)


def render_table(comparison: Comparison) -> Table:
    """Returns the comparison for a terminal: trials first, best J&F first, then the baselines.

    Scores are percent, means over the finished seeds.
    """
    table = Table(title=f"{comparison.study.experiment}: percent, mean ± standard deviation over seeds")
    table.add_column("configuration", min_width=26, overflow="fold")
    for name in ("seeds", "J&F", "J", "F", "labels"):
        table.add_column(name, justify="right", no_wrap=True)
    for rows in (comparison.rows, comparison.baselines):
        for row in rows:
            label, _, _, seeds, jf, j, f, labels, note = _cells(row)
            # Deviations of J and F are in the exports; here they would cost the width of a terminal.
            short = [score.partition(" ±")[0] for score in (j, f)]
            cell = Text.assemble(label, (f"\n  {note}" if note else "", "dim not bold"))
            cells = [seeds, jf, *short, f"{labels} %" if labels else ""]
            table.add_row(cell, *cells, style="bold" if row is comparison.best else None)
        table.add_section()
    return table


def markdown_table(comparison: Comparison) -> str:
    """Returns the comparison as a Markdown table."""
    return _markdown([_HEADER, tuple("---" for _ in _HEADER), *(_cells(row) for row in _rows(comparison))])


def note_text(comparison: Comparison, words: Verdict) -> str:
    """Returns summary and a short table in Markdown, for the description of the sweep's run in MLflow."""
    sentences = [f"**{words.headline}** {words.certainty}", words.supervision, *words.warnings]
    lines = [("configuration", "seeds", *(name for _, name in _SCORES), "labels %", "note")]
    lines.append(tuple("---" for _ in lines[0]))
    rows = _rows(comparison)
    for row in rows[:_NOTE_ROWS]:
        label, _, _, *rest = _cells(row)
        lines.append((label, *rest))
    more = f"{len(rows) - _NOTE_ROWS} more rows are in the page. " if len(rows) > _NOTE_ROWS else ""
    where = f"{more}Plots, pictures and the paper's tables: artifact `report/report.html`."
    return "\n\n".join([*filter(None, sentences), _markdown(lines), where])


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def csv_table(comparison: Comparison) -> str:
    """Returns the comparison as CSV, numbers in full precision, one column for each mean and each deviation."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{key}_{part}" for key in ("jf", "j", "f") for part in ("mean", "std")]
    axes = list(comparison.axes)
    writer.writerow(["configuration", "kind", "strategy", "network", *axes, "seeds", *names, "label_percent", "note"])
    for row in _rows(comparison):
        numbers: list[object] = []
        for metric, _ in _SCORES:
            score = row.statistic(metric)
            numbers += ["", ""] if score is None else [score.mean, "" if score.std is None else score.std]
        settings = [row.settings.get(axis, "") for axis in axes]
        budget = "" if row.label_percent is None else row.label_percent
        head = [row.label, row.kind, row.strategy, row.network, *settings, len(row.finished)]
        writer.writerow([*head, *numbers, budget, row.note])
    return out.getvalue()


def latex_table(comparison: Comparison) -> str:
    r"""Returns the comparison as a LaTeX `tabular` (booktabs), the best mean of a column in bold."""
    lines = [
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        r"Method & Seeds & $\mathcal{J}\&\mathcal{F}$ & $\mathcal{J}$ & $\mathcal{F}$ & Labels \\",
        r"\midrule",
    ]
    best = {metric: _highest(comparison.rows, metric) for metric, _ in _SCORES}
    for index, row in enumerate(_rows(comparison)):
        if index == len(comparison.rows) and comparison.rows:
            lines.append(r"\midrule")
        cells = [latex_escape(row.label), str(len(row.finished)) if row.kind == "trial" else ""]
        for metric, _ in _SCORES:
            score = row.statistic(metric)
            text = "--" if score is None else score.text().replace("±", r"$\pm$")
            bold = score is not None and row.kind == "trial" and score.mean == best[metric]
            cells.append(rf"\textbf{{{text}}}" if bold else text)
        cells.append("--" if row.label_percent is None else rf"{row.label_percent:.3g}\,\%")
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _highest(rows: Sequence[Row], metric: str) -> float | None:
    return max((score.mean for row in rows if (score := row.statistic(metric))), default=None)


def latex_escape(text: str) -> str:
    """Returns text as LaTeX prints it."""
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    return text.replace("·", r"$\cdot$").replace("→", r"$\to$")
