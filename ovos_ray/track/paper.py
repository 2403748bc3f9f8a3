"""Our rows beside the published ones, and the reason wherever the two cannot be compared.

A difference is given only where network size, dataset and split are the same. Dataset and split are recognised by the
sequences that were scored, not by what a folder is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ovos_ray.io import read_json
from ovos_ray.track.comparison import Comparison, Row, Statistic

__all__ = ["OurCells", "PaperTable", "TableLine", "evaluated_on", "paper_tables"]

_METRICS = {
    "J&F": "final/jf",
    "J": "final/j",
    "F": "final/f",
    "G": "final/g",
    "J_S": "final/j_s",
    "F_S": "final/f_s",
    "J_U": "final/j_u",
    "F_U": "final/f_u",
}
_FULL_SIZE = {"stcn": ("stcn",), "xmem": ("xmem",), "cutie": ("cutie-base",)}


@dataclass(frozen=True)
class OurCells:
    """One of our configurations beside a published row.

    Attributes:
        label: The configuration.
        scored_on: What it was scored on.
        num_seeds: Finished seeds.
        label_percent: Label budget, or None.
        scores: By column of the table's groups, in order; None where ours has no such score.
        differences: Ours minus published in points, by column; None where not comparable.
        reason: Why a cell or difference is missing, empty if none is.
    """

    label: str
    scored_on: str
    num_seeds: int
    label_percent: float | None
    scores: tuple[Statistic | None, ...]
    differences: tuple[float | None, ...]
    reason: str


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
    def has_ours(self) -> bool:
        """Whether any row of ours stands in it."""
        return any(line.ours for line in self.lines)


@cache
def _published() -> dict[str, Any]:
    document: dict[str, Any] = read_json(Path(__file__).with_name("paper_tables.json"))
    return document


def _official(protocol: str, sequences: frozenset[str]) -> str:
    """Returns the benchmark split that consists of exactly these sequences, or an empty string."""
    for name, split in _published()["sequences"].items():
        if split["protocol"] == protocol and frozenset(split["names"].split()) == sequences:
            return str(name)
    return ""


def evaluated_on(row: Row) -> tuple[str, str]:
    """Returns (official dataset/split or empty, words for the reader) of a configuration's final scores."""
    places = set()
    for run in row.finished:
        sequences = frozenset(sequence for sequence, _ in run.scores)
        official = _official(run.param("evaluation.protocol"), sequences)
        split = run.param("evaluation.split", "val")
        name = Path(run.param("evaluation.root") or "unknown data").name
        words = official or f"{name} {split}" + (f" ({len(sequences)} sequences)" if sequences else "")
        places.add((run.tags.get("ovos.evaluated_on", official), run.tags.get("ovos.evaluated_on", words)))
    if len(places) == 1:
        return places.pop()
    return "", "different data" if places else "nothing yet"


def paper_tables(comparison: Comparison) -> tuple[PaperTable, ...]:
    """Returns the paper's Tables 1 to 4 with our finished configurations beside the rows they correspond to."""
    return tuple(_table(table, comparison.rows) for table in _published()["tables"])


def _table(table: dict[str, Any], rows: Sequence[Row]) -> PaperTable:
    groups = tuple((group["label"], tuple(group["columns"])) for group in table["groups"])
    datasets = [group["dataset"] for group in table["groups"] for _ in group["columns"]]
    columns = [column for group in table["groups"] for column in group["columns"]]
    lines = []
    for line in table["rows"]:
        values = tuple(line["values"])
        matching = [row for row in rows if line["match"] is not None and _matches(row, line["match"])]
        ours = tuple(_cells(row, line["match"], datasets, columns, values) for row in matching if row.finished)
        lines.append(
            TableLine(line.get("section", ""), line["method"], line["labels"] or "", values, ours, _why(line, matching))
        )
    return PaperTable(table["number"], table["title"], groups, tuple(lines), tuple(table["notes"]))


def _why(line: dict[str, Any], matching: Sequence[Row]) -> str:
    if line["match"] is None:
        return "not part of ovos_ray"
    if not matching:
        return "no such trial in this study"
    if not any(row.finished for row in matching):
        return matching[0].note or "not finished"
    return ""


def _matches(row: Row, match: dict[str, Any]) -> bool:
    run = row.runs[0]
    if row.network.partition("-")[0] != match["network"]:
        return False
    if match["one_shot"] != (row.strategy != "fully supervised") or row.strategy == "empty reference":
        return False
    if "strategy" in match and match["strategy"] != row.strategy:
        return False
    pretrained = bool(run.param("pretrain.recipe"))
    return "pretrained" not in match or match["pretrained"] == pretrained


def _cells(
    row: Row,
    match: dict[str, Any],
    datasets: Sequence[str],
    columns: Sequence[str],
    published: Sequence[float | None],
) -> OurCells:
    official, words = evaluated_on(row)
    full_size = row.network in _FULL_SIZE[match["network"]]
    scores: list[Statistic | None] = []
    differences: list[float | None] = []
    for dataset, column, value in zip(datasets, columns, published, strict=True):
        here = official == dataset
        # Scores on other data stand in the table's first group, marked, so that the row can be read at all.
        shown = here or (official not in datasets and dataset == datasets[0])
        score = row.statistic(_METRICS[column]) if shown else None
        scores.append(score)
        comparable = here and full_size and score is not None and value is not None
        differences.append(score.mean - value if comparable and score is not None and value is not None else None)
    reasons = []
    if official not in datasets:
        reasons.append(f"scored on {words}")
    if not full_size:
        reasons.append(f"{row.network} is not the paper's network")
    if official in datasets and len(set(datasets)) > 1:
        reasons.append(f"scored on {official} only")
    if not any(scores):
        reasons.append(f"has no {columns[0]}")
    return OurCells(
        row.label,
        words,
        len(row.finished),
        row.label_percent,
        tuple(scores),
        tuple(differences),
        ("not comparable: " if not any(d is not None for d in differences) else "") + "; ".join(reasons),
    )
