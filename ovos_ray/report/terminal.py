"""Terminal report, for people on ssh: the summary, the comparison, and the paper's tables with ours in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ovos_ray.report.numbers.axes import axis_effects
from ovos_ray.report.numbers.rows import Comparison
from ovos_ray.report.numbers.significance import against_best
from ovos_ray.report.numbers.verdict import verdict
from ovos_ray.report.paper.paper import PaperTable, TableLine, paper_tables, score_text
from ovos_ray.report.tables import render_table

__all__ = ["render_report"]


def render_report(comparison: Comparison, stage_0: Sequence[str] = ()) -> Iterator[RenderableType]:
    """Yields what `ovos-ray report --terminal` prints, top to bottom; for `stage_0` see `paper_tables`."""
    words = verdict(comparison, against_best(comparison), axis_effects(comparison))
    yield Text(words.headline, style="bold")
    for sentence in filter(None, (words.certainty, words.supervision)):
        yield Text(sentence)
    for axis, sentence in words.axes:
        yield Padding(Text.assemble((f"{axis}: ", "bold"), sentence), (0, 0, 0, 2))
    for warning in words.warnings:
        yield Text(warning, style="yellow")
    yield Text(f"{words.states} {words.data}", style="dim")
    yield ""
    yield render_table(comparison)
    yield from filter(None, map(_paper_table, paper_tables(comparison, stage_0)))


def _paper_table(paper: PaperTable) -> Table | None:
    """The published rows that ours belong to, and ours, in the columns that ours fill; the rest is in the files."""
    names = paper.columns
    ours = [cells for line in paper.lines for cells in line.ours]
    filled = [place for place in range(len(names)) if any(cells.scores[place] for cells in ours)]
    if not filled:
        return None
    groups = list(dict.fromkeys(names[place][0] for place in filled))
    where = f" ({groups[0]})" if len(groups) == 1 else ""
    title = f"Table {paper.number}: {paper.title}{where}"
    table = Table(title=title, caption="\n".join(paper.notes) or None, caption_justify="left")
    table.add_column("method", overflow="fold")
    for place in filled:
        group, column = names[place]
        table.add_column(column if where else f"{group.removesuffix(' val')}\n{column}", justify="right")
    for line in paper.lines:
        if line.ours:
            for name, cells in _lines(line):
                table.add_row(name, *(cells[place] for place in filled))
            table.add_section()
    return table


def _lines(line: TableLine) -> Iterator[tuple[Text, Sequence[str]]]:
    values = [*map(score_text, line.values)]
    where = f", {line.section}" if line.section else ""
    yield Text(f"{line.method}{where} (published)", style="dim"), values
    for ours in line.ours:
        scores = [score_text(score) + ("" if gap is None else f" ({gap:+.1f})") for score, gap in ours.cells]
        name = Text(f"  {ours.label}", style="bold")
        for part in filter(None, (ours.contrast_text, ours.reason)):
            name.append(f"\n    {part}", style="not bold dim")
        yield name, scores
