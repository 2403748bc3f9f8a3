"""The report for people on ssh: the summary, the comparison, and the paper's tables with ours in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ovos_ray.track.comparison import Comparison
from ovos_ray.track.paper import PaperTable, TableLine, paper_tables
from ovos_ray.track.paper_exports import contrast_text
from ovos_ray.track.significance import against_best, axis_effects
from ovos_ray.track.tables import render_table
from ovos_ray.track.verdict import verdict

__all__ = ["render_report"]


def render_report(comparison: Comparison) -> Iterator[RenderableType]:
    """Yields what `ovos-ray report --terminal` prints, top to bottom.

    Args:
        comparison: With per-sequence scores; curves are not needed.
    """
    words = verdict(comparison, against_best(comparison), axis_effects(comparison))
    yield Text(words.headline, style="bold")
    if words.certainty:
        yield Text(words.certainty)
    for axis, sentence in words.axes:
        yield Padding(Text.assemble((f"{axis}: ", "bold"), sentence), (0, 0, 0, 2))
    for warning in words.warnings:
        yield Text(warning, style="yellow")
    yield Text(f"{words.states} {words.data}", style="dim")
    yield ""
    yield render_table(comparison)
    yield from (_paper_table(table) for table in paper_tables(comparison) if table.has_ours)


def _paper_table(paper: PaperTable) -> Table:
    """The published rows that ours belong to, and ours; the other published rows are in the files."""
    caption = "\n".join(paper.notes) or None
    table = Table(title=f"Table {paper.number}: {paper.title}", caption=caption, title_justify="left")
    table.add_column("method", min_width=22, overflow="fold")
    several = len(paper.groups) > 1
    for group, columns in paper.groups:
        for column in columns:
            table.add_column(f"{group.removesuffix(' val')}\n{column}" if several else column, justify="right")
    table.add_column("note", overflow="fold")
    for line in paper.lines:
        if line.ours:
            for cells, style in _lines(line):
                table.add_row(*cells, style=style)
            table.add_section()
    return table


def _lines(line: TableLine) -> Iterator[tuple[Sequence[str], str]]:
    values = ["–" if value is None else f"{value:.1f}" for value in line.values]
    where = f", {line.section}" if line.section else ""
    yield [escape(f"{line.method}{where}"), *values, "published"], "dim"
    for ours in line.ours:
        scores = [
            ("–" if score is None else score.text()) + ("" if gap is None else f"\n{gap:+.1f}")
            for score, gap in zip(ours.scores, ours.differences, strict=True)
        ]
        note = "\n".join(part for part in (contrast_text(ours), ours.reason) if part)
        yield [escape(f"  {ours.label}"), *scores, escape(note)], ""
