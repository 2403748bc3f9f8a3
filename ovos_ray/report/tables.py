"""The comparison as a table: for the terminal, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ovos_ray.evaluate.metrics import COMPARED
from ovos_ray.report.numbers.comparison import Comparison, Row, Statistic
from ovos_ray.report.numbers.verdict import Verdict

__all__ = ["csv_table", "latex_escape", "latex_symbol", "latex_table", "markdown_table", "note_text", "render_table"]

_LABELS = tuple(measure.label for measure in COMPARED)
_HEADER = ("configuration", "strategy", "network", "seeds", *_LABELS, "labels %", "note")
_NOTE_ROWS = 30
"""MLflow cuts tags at 8,000 characters."""


def _cells(row: Row) -> list[str]:
    scores = _scores(row)
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


def _scores(row: Row) -> list[Statistic | None]:
    return [row.statistic(f"final/{measure.key}") for measure in COMPARED]


def _rows(comparison: Comparison) -> Sequence[Row]:
    return (*comparison.rows, *comparison.baselines)


def render_table(comparison: Comparison) -> Table:
    """Returns the comparison for a terminal: trials first, best J&F first, then the baselines.

    Scores are percent, means over the finished seeds.
    """
    table = Table(title=f"{comparison.study.experiment}: percent, mean ± standard deviation over seeds")
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
    sentences = [f"**{words.headline}** {words.certainty}", words.supervision, *words.warnings]
    lines = [("configuration", "seeds", *_LABELS, "labels %", "note")]
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
    names = [f"{measure.key}_{part}" for measure in COMPARED for part in ("mean", "std")]
    axes = list(comparison.axes)
    writer.writerow(["configuration", "kind", "strategy", "network", *axes, "seeds", *names, "label_percent", "note"])
    for row in _rows(comparison):
        numbers: list[object] = []
        for score in _scores(row):
            numbers += ["", ""] if score is None else [score.mean, "" if score.std is None else score.std]
        settings = [row.settings.get(axis, "") for axis in axes]
        budget = "" if row.label_percent is None else row.label_percent
        head = [row.label, row.kind, row.strategy, row.network, *settings, len(row.finished)]
        writer.writerow([*head, *numbers, budget, row.note])
    return out.getvalue()


def latex_table(comparison: Comparison) -> str:
    r"""Returns the comparison as a LaTeX `tabular` (booktabs), the best mean of a column in bold."""
    lines = [
        rf"\begin{{tabular}}{{lr{'r' * len(COMPARED)}r}}",
        r"\toprule",
        rf"Method & Seeds & {' & '.join(map(latex_symbol, _LABELS))} & Labels \\",
        r"\midrule",
    ]
    columns = zip(*map(_scores, comparison.rows), strict=True)
    best = [max((score.mean for score in column if score), default=None) for column in columns]
    for index, row in enumerate(_rows(comparison)):
        if index == len(comparison.rows) and comparison.rows:
            lines.append(r"\midrule")
        cells = [latex_escape(row.label), str(len(row.finished)) if row.kind == "trial" else ""]
        for place, score in enumerate(_scores(row)):
            text = "--" if score is None else score.text().replace("±", r"$\pm$")
            bold = score is not None and row.kind == "trial" and score.mean == best[place]
            cells.append(rf"\textbf{{{text}}}" if bold else text)
        cells.append("--" if row.label_percent is None else rf"{row.label_percent:.3g}\,\%")
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_symbol(label: str) -> str:
    """Returns a measure's label as LaTeX prints it: the letters of `J&F`, `J_S` or `F decay` in calligraphic."""
    name, *words = label.split(" ")
    head, _, index = name.partition("_")
    symbol = r"\&".join(rf"\mathcal{{{letter}}}" for letter in head.split("&"))
    return " ".join([f"${symbol}_{index}$" if index else f"${symbol}$", *words])


def latex_escape(text: str) -> str:
    """Returns text as LaTeX prints it."""
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    return text.replace("·", r"$\cdot$").replace("→", r"$\to$")
