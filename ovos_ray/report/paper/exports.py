"""The paper's tables with ours in them, to paste: Markdown, LaTeX, and CSV with one line a score."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from ovos_ray.report.numbers.verdict import p_text
from ovos_ray.report.paper.paper import OurCells, PaperTable, TableLine
from ovos_ray.report.tables import latex_escape, latex_symbol

__all__ = ["contrast_text", "paper_csv", "paper_latex", "paper_markdown"]

_CSV_HEADER = (
    "table", "section", "method", "source", "dataset", "metric", "mean", "std", "seeds", "label_percent",
    "minus_published", "against", "minus_against", "p_holm", "note",
)  # fmt: skip


def contrast_text(ours: OurCells) -> str:
    """Returns how our row stands to its counterpart (`+2.1 against T-step · xmem …`), or nothing."""
    if ours.contrast is None:
        return ""
    found = ours.contrast.paired
    p = found.p if found.p_holm is None else found.p_holm
    few = "" if found.smallest_p <= 0.05 else ", too few for a test"
    return (
        f"{found.difference:+.1f} against {ours.contrast.against} ({found.num_sequences} sequences, {p_text(p)}{few})"
    )


def paper_markdown(tables: Sequence[PaperTable]) -> str:
    """Returns the tables that have any row of ours, ours beneath the published rows they correspond to."""
    lines = []
    for table in tables:
        if not table.has_ours:
            continue
        columns = [f"{group}: {column}" for group, names in table.groups for column in names]
        lines += ["", f"**Table {table.number}: {table.title}**", ""]
        lines.append("| method | labels | " + " | ".join(columns) + " | note |")
        lines.append("|" + " --- |" * (len(columns) + 3))
        for line in table.lines:
            values = ["–" if value is None else f"{value:.1f}" for value in line.values]
            method = f"{line.method} ({line.section})" if line.section else line.method
            note = "published" if not line.missing else f"published; ours: {line.missing}"
            lines.append("| " + " | ".join([method, line.labels, *values, note]) + " |")
            for ours in line.ours:
                cells = [
                    ("–" if score is None else score.text()) + ("" if change is None else f" ({change:+.1f})")
                    for score, change in zip(ours.scores, ours.differences, strict=True)
                ]
                lines.append("| " + " | ".join([_name(ours), _budget(ours), *cells, _note(ours)]) + " |")
        lines += ["", *table.notes]
    return "\n".join([*lines, ""])


def paper_csv(tables: Sequence[PaperTable]) -> str:
    """Returns all tables, one line for each score, numbers in full precision, published ones as printed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for table in tables:
        columns = [(group, column) for group, names in table.groups for column in names]
        for line in table.lines:
            head = (table.number, line.section, line.method)
            for (dataset, column), value in zip(columns, line.values, strict=True):
                published = "" if value is None else value
                cells = (published, "", "", line.labels.rstrip("%"), "", "", "", "")
                writer.writerow([*head, "published", dataset, column, *cells, line.missing])
            for ours in line.ours:
                names = [column for _, column in columns]
                writer.writerows([*head, f"ours: {ours.label}", *cells] for cells in _csv_cells(ours, names))
    return out.getvalue()


def _csv_cells(ours: OurCells, columns: Sequence[str]) -> Iterator[list[object]]:
    contrast = ["", "", ""]
    if ours.contrast is not None:
        found = ours.contrast.paired
        contrast = [ours.contrast.against, str(found.difference), _plain(found.p_holm)]
    for column, place, score, change in zip(columns, ours.scored_on, ours.scores, ours.differences, strict=True):
        if score is not None:
            numbers = [score.mean, _plain(score.std), ours.num_seeds, _plain(ours.label_percent)]
            yield [place, column, *numbers, _plain(change), *contrast, ours.reason]


def paper_latex(tables: Sequence[PaperTable]) -> str:
    r"""Returns a `table` (booktabs) for each that has any row of ours; what is not comparable says so in a footnote."""
    return "\n".join(_latex(table) for table in tables if table.has_ours)


def _latex(table: PaperTable) -> str:
    widths = [len(names) for _, names in table.groups]
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{lr{'r' * sum(widths)}}}", r"\toprule"]
    spans = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{latex_escape(name)}}}" for name, width in _named(table))
    lines.append(rf"& & {spans} \\")
    columns = " & ".join(latex_symbol(name) for _, names in table.groups for name in names)
    lines += [rf"Method & Labels & {columns} \\", r"\midrule"]
    notes: dict[str, int] = {}
    section = ""
    for line in table.lines:
        if line.section != section:
            section = line.section
            lines.append(rf"\multicolumn{{{sum(widths) + 2}}}{{l}}{{\textit{{{latex_escape(section)}}}}} \\")
        lines.append(_latex_published(line))
        for ours in line.ours:
            lines.append(_latex_ours(ours, notes))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines.append(rf"\caption{{{latex_escape(table.title)}. Ours: mean $\pm$ standard deviation over seeds.}}")
    lines += [rf"\par\footnotesize $^{{{number}}}$ {latex_escape(text)}" for text, number in notes.items()]
    lines += [rf"\par\footnotesize {latex_escape(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_published(line: TableLine) -> str:
    values = ["--" if value is None else f"{value:.1f}" for value in line.values]
    return " & ".join([latex_escape(line.method), latex_escape(line.labels), *values]) + r" \\"


def _latex_ours(ours: OurCells, notes: dict[str, int]) -> str:
    mark = rf"$^{{{notes.setdefault(_note(ours), len(notes) + 1)}}}$" if _note(ours) else ""
    cells = [
        ("--" if score is None else score.text().replace("±", r"$\pm$")) + ("" if gap is None else f" (${gap:+.1f}$)")
        for score, gap in zip(ours.scores, ours.differences, strict=True)
    ]
    name = rf"\quad {latex_escape(_name(ours))}{mark}"
    return " & ".join([name, latex_escape(_budget(ours)), *cells]) + r" \\"


def _named(table: PaperTable) -> list[tuple[str, int]]:
    return [(name, len(columns)) for name, columns in table.groups]


def _name(ours: OurCells) -> str:
    return f"ours: {ours.label} ({ours.num_seeds} seed{'' if ours.num_seeds == 1 else 's'})"


def _budget(ours: OurCells) -> str:
    return "" if ours.label_percent is None else f"{ours.label_percent:.3g}%"


def _note(ours: OurCells) -> str:
    return "; ".join(part for part in (contrast_text(ours), ours.reason) if part)


def _plain(value: float | None) -> str:
    return "" if value is None else str(value)
