"""Paper tables: our rows beside the published ones, and the reason wherever the two cannot be compared.

A difference is given only where dataset, split, network, initial weights, steps, n and batch are the same. Dataset and
split are recognised by the sequences that were scored, not by what a folder is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ovos_ray.evaluate.metrics import COMPARED
from ovos_ray.report.numbers.rows import Comparison, Row, Statistic
from ovos_ray.report.numbers.significance import Paired, holm_corrected, p_text, paired
from ovos_ray.report.paper.comparable import belongs, differences
from ovos_ray.report.paper.published import benchmark_metrics, evaluated_on, published

__all__ = ["Contrast", "OurCells", "PaperTable", "TableLine", "paper_tables", "score_text"]

_METRICS = {measure.label: measure.key for measure in COMPARED}


def score_text(score: float | Statistic | None) -> str:
    """Returns a published score or one of ours as it is printed: `82.7`, `81.7 ± 0.4`, or a dash."""
    if score is None:
        return "–"
    return score.text() if isinstance(score, Statistic) else f"{score:.1f}"


@dataclass(frozen=True)
class Contrast:
    """What a table of the paper is about, asked of our runs: one configuration minus its counterpart further up.

    Attributes:
        against: Label of the counterpart: the same network, trained as that line of the table says.
        paired: Over the sequences both were scored on, Holm-corrected for all contrasts of the table.
    """

    against: str
    paired: Paired


@dataclass(frozen=True)
class OurCells:
    """One of our configurations beside a published row.

    Attributes:
        label: The configuration.
        scored_on: By column, the data behind the score; empty where ours has none.
        num_seeds: Finished seeds.
        label_percent: Label budget, or None.
        scores: By column of the table's groups, in order; None where ours has no such score.
        differences: Ours minus published in points, by column; None where not comparable.
        reason: Why a cell or difference is missing, empty if none is.
        contrast: Against ours in a line further up; None if there is none, or without per-sequence scores.
    """

    label: str
    scored_on: tuple[str, ...]
    num_seeds: int
    label_percent: float | None
    scores: tuple[Statistic | None, ...]
    differences: tuple[float | None, ...]
    reason: str
    contrast: Contrast | None = None

    @property
    def name(self) -> str:
        """The configuration and how many seeds of it are finished."""
        return f"{self.label} ({self.num_seeds} seed{'' if self.num_seeds == 1 else 's'})"

    @property
    def budget(self) -> str:
        """The label budget as the paper prints it, or nothing."""
        return "" if self.label_percent is None else f"{self.label_percent:.3g}%"

    @property
    def contrast_text(self) -> str:
        """How it stands to its counterpart (`+2.1 against T-step · xmem …`), or nothing."""
        if self.contrast is None:
            return ""
        found, against = self.contrast.paired, self.contrast.against
        few = "" if found.smallest_p <= 0.05 else ", too few for a test"
        return f"{found.difference:+.1f} against {against} ({found.num_sequences} sequences, {p_text(found.p)}{few})"

    @property
    def note(self) -> str:
        """Contrast and reason, whichever there are."""
        return "; ".join(filter(None, (self.contrast_text, self.reason)))

    @property
    def cells(self) -> tuple[tuple[Statistic | None, float | None], ...]:
        """(score, difference) by column."""
        return tuple(zip(self.scores, self.differences, strict=True))


@dataclass(frozen=True)
class TableLine:
    """A published row and ours beside it.

    Attributes:
        section: Heading above it in the paper, or empty.
        method: Its name in the paper.
        labels: Label percentage as printed, or empty.
        values: Published scores by column, None where the paper has a dash.
        ours: Our configurations that match it; empty if there are none.
        missing: Why `ours` is empty.
    """

    section: str
    method: str
    labels: str
    values: tuple[float | None, ...]
    ours: tuple[OurCells, ...]
    missing: str


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        number: 1 to 4.
        title: What it shows.
        groups: (dataset label, its column names).
        lines: The rows.
        notes: Footnotes.
    """

    number: int
    title: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    lines: tuple[TableLine, ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(dataset label, column name) from left to right."""
        return tuple((group, column) for group, names in self.groups for column in names)

    @property
    def footnotes(self) -> list[str]:
        """The notes of our rows, each once."""
        return list(dict.fromkeys(ours.note for line in self.lines for ours in line.ours if ours.note))

    @property
    def has_ours(self) -> bool:
        """Whether any score of ours stands in it."""
        return any(any(ours.scores) for line in self.lines for ours in line.ours)


def paper_tables(comparison: Comparison, stage_0: Sequence[str] = ()) -> tuple[PaperTable, ...]:
    """Returns the paper's Tables 1 to 4 with our finished configurations beside the rows they correspond to.

    Args:
        comparison: The configurations.
        stage_0: Names of weights files, beside the official ones, that hold weights pretrained on static images as the
            published ones were; a run with one of them as `network.init` counts as pretrained.
    """
    return tuple(_table(table, comparison.rows, stage_0) for table in published()["tables"])


def _table(table: dict[str, Any], rows: Sequence[Row], stage_0: Sequence[str]) -> PaperTable:
    groups = tuple((group["label"], tuple(group["columns"])) for group in table["groups"])
    datasets = [group["dataset"] for group in table["groups"] for _ in group["columns"]]
    columns = [column for group in table["groups"] for column in group["columns"]]
    lines = []
    matching = [
        [row for row in rows if line["match"] is not None and belongs(row, line["match"], stage_0)]
        for line in table["rows"]
    ]
    contrasts = _contrasts(table["rows"], matching)
    for number, line in enumerate(table["rows"]):
        values = tuple(line["values"])
        ours = tuple(
            replace(
                _cells(row, line["match"], stage_0, datasets, columns, values),
                contrast=contrasts.get((number, row.label)),
            )
            for row in matching[number]
            if row.finished
        )
        why = _why(line, matching[number])
        lines.append(TableLine(line.get("section", ""), line["method"], line["labels"] or "", values, ours, why))
    return PaperTable(table["number"], table["title"], groups, tuple(lines), tuple(table["notes"]))


def _contrasts(lines: Sequence[dict[str, Any]], matching: Sequence[Sequence[Row]]) -> dict[tuple[int, str], Contrast]:
    """Returns, by (line, label), each of our rows against its counterpart further up the table, where both are scored.

    The counterpart stands under the nearest earlier line of the same network and, of several there, agrees in most
    settings; the best one, should they tie.
    """
    found: dict[tuple[int, str], Contrast] = {}
    for number, line in enumerate(lines):
        above = [
            rows
            for earlier, rows in zip(lines[:number], matching[:number], strict=True)
            if earlier["match"] is not None
            and line["match"] is not None
            and earlier["match"]["network"] == line["match"]["network"]
            and any(row.finished for row in rows)
        ]
        for row in matching[number] if above else ():
            others = [other for other in above[-1] if other.finished and other.network == row.network]
            if row.finished and others:
                other = max(others, key=lambda other: len(row.settings.items() & other.settings.items()))
                if (result := paired(row, other)) is not None:
                    found[number, row.label] = Contrast(other.label, result)
    corrected = holm_corrected([contrast.paired for contrast in found.values()])
    return {key: replace(one, paired=p) for (key, one), p in zip(found.items(), corrected, strict=True)}


def _why(line: dict[str, Any], matching: Sequence[Row]) -> str:
    if line["match"] is None:
        return "not part of ovos_ray"
    if not matching:
        return "no such trial in this study"
    if not any(row.finished for row in matching):
        return matching[0].note or "not finished"
    return ""


def _cells(
    row: Row,
    match: dict[str, Any],
    stage_0: Sequence[str],
    datasets: Sequence[str],
    columns: Sequence[str],
    published: Sequence[float | None],
) -> OurCells:
    """Returns ours beside a published row; `datasets`, `columns` and `published` go along the table's columns."""
    places = benchmark_metrics(row)  # by dataset, where in our metrics its scores are
    scored = [dataset for dataset in dict.fromkeys(datasets) if dataset in places]
    elsewhere = None if scored else evaluated_on(row)[1]
    if elsewhere is not None:  # stands in the table's first group, marked, so that the row can be read at all
        places = {datasets[0]: "final"}
    scores = tuple(
        row.statistic(f"{places[dataset]}/{_METRICS.get(column, column.lower())}") if dataset in places else None
        for dataset, column in zip(datasets, columns, strict=True)
    )
    apart = differences(row, match, stage_0)
    comparable = bool(scored) and not apart
    gaps = tuple(
        score.mean - value if comparable and score is not None and value is not None else None
        for score, value in zip(scores, published, strict=True)
    )
    reasons = [] if elsewhere is None else [f"scored on {elsewhere}"]
    reasons += apart
    if scored and len(scored) < len(set(datasets)):
        reasons.append(f"scored on {', '.join(scored)} only")
    if not any(scores):
        reasons.append(f"has no {columns[0]}")
    return OurCells(
        label=row.label,
        scored_on=tuple(
            "" if s is None else d if elsewhere is None else elsewhere for d, s in zip(datasets, scores, strict=True)
        ),
        num_seeds=len(row.finished),
        label_percent=row.label_percent,
        scores=scores,
        differences=gaps,
        reason=("not comparable: " if all(gap is None for gap in gaps) else "") + "; ".join(reasons),
    )
