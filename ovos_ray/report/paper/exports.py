"""Exports of the paper's tables with ours in them: Markdown, LaTeX, and CSV with one line a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovos_ray.evaluate.score.table import csv_text
from ovos_ray.report.paper.paper import OurCells, PaperTable
from ovos_ray.report.render import render

__all__ = ["paper_csv", "paper_latex", "paper_markdown"]

_CSV_HEADER = (
    "table", "section", "method", "source", "dataset", "metric", "mean", "std", "seeds", "label_percent",
    "minus_published", "against", "minus_against", "p_holm", "note",
)  # fmt: skip


def paper_markdown(tables: Sequence[PaperTable]) -> str:
    """Returns the tables that have any row of ours, ours beneath the published rows they correspond to."""
    return render("paper.md", tables=tables)


def paper_latex(tables: Sequence[PaperTable]) -> str:
    r"""Returns a `table` (booktabs) for each that has any row of ours; what is not comparable says so in a footnote."""
    return render("paper.tex", tables=tables)


def paper_csv(tables: Sequence[PaperTable]) -> str:
    """Returns all tables, one line for each score, numbers in full precision, published ones as printed."""
    return csv_text([_CSV_HEADER, *(line for table in tables for line in _csv_lines(table))])


def _csv_lines(table: PaperTable) -> Iterator[list[object]]:
    for line in table.lines:
        head = (table.number, line.section, line.method)
        for (dataset, column), value in zip(table.columns, line.values, strict=True):
            published = ("published", dataset, column, value, "", "", line.labels.rstrip("%"), "", "", "", "")
            yield [*head, *published, line.missing]
        for ours in line.ours:
            for cells in _csv_ours(ours, [column for _, column in table.columns]):
                yield [*head, f"ours: {ours.label}", *cells]


def _csv_ours(ours: OurCells, columns: Sequence[str]) -> Iterator[list[object]]:
    contrast: list[object] = ["", "", ""]
    if ours.contrast is not None:
        contrast = [ours.contrast.against, ours.contrast.paired.difference, ours.contrast.paired.p_holm]
    for column, place, (score, gap) in zip(columns, ours.scored_on, ours.cells, strict=True):
        if score is not None:
            numbers = (score.mean, score.std, ours.num_seeds, ours.label_percent, gap)
            yield [place, column, *numbers, *contrast, ours.reason]
