"""Our rows beside the published ones, and the reason wherever the two cannot be compared.

A difference is given only where network size, dataset and split are the same. Dataset and split are recognised by the
sequences that were scored, not by what a folder is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ovos_ray.evaluate.metrics import COMPARED
from ovos_ray.io import read_json
from ovos_ray.report.numbers.comparison import Comparison, Row, Statistic
from ovos_ray.report.numbers.significance import Paired, holm_corrected, paired
from ovos_ray.report.read import Scores
from ovos_ray.track.strategy import EMPTY, SUPERVISED

__all__ = ["Contrast", "OurCells", "PaperTable", "TableLine", "evaluated_on", "paper_tables"]

_METRICS = {measure.label: measure.key for measure in COMPARED}
_FULL_SIZE = {"stcn": ("stcn",), "xmem": ("xmem",), "cutie": ("cutie-base",)}


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
        """Whether any score of ours stands in it."""
        return any(any(ours.scores) for line in self.lines for ours in line.ours)


@cache
def _published() -> dict[str, Any]:
    document: dict[str, Any] = read_json(Path(__file__).with_name("tables.json"))
    return document


def _official(scores: Scores, protocol: str) -> str:
    """Returns the benchmark split that consists of exactly these sequences, or an empty string."""
    sequences = frozenset(sequence for sequence, _ in scores)
    for name, split in _published()["sequences"].items():
        if split["protocol"] == protocol and frozenset(split["names"].split()) == sequences:
            return str(name)
    return ""


def evaluated_on(row: Row) -> tuple[str, str]:
    """Returns (official dataset/split or empty, words for the reader) of a configuration's final scores."""
    places = set()
    for run in row.finished:
        official = _official(run.scores, run.param("evaluation.protocol"))
        split = run.param("evaluation.split", "val")
        name = Path(run.param("evaluation.root") or "unknown data").name
        number = len({sequence for sequence, _ in run.scores})
        words = official or f"{name} {split}" + (f" ({number} sequences)" if number else "")
        places.add((run.tags.get("ovos.evaluated_on", official), run.tags.get("ovos.evaluated_on", words)))
    if len(places) == 1:
        return places.pop()
    return "", "different data" if places else "nothing yet"


def _benchmarks(row: Row) -> dict[str, str]:
    """Returns, by official dataset/split, how the metrics of a configuration's scores there begin."""
    found = {}
    for name in {name for run in row.finished for name in run.also}:
        places = {_official(run.also.get(name, {}), _protocol(run.also.get(name, {}))) for run in row.finished}
        if len(places) == 1:
            found[places.pop()] = f"final/{name}"
    found[evaluated_on(row)[0]] = "final"
    found.pop("", None)
    return found


def _protocol(scores: Scores) -> str:
    """Returns which of DAVIS' protocols was followed: 2016 merges all objects into one, 2017 has several."""
    return "davis2016" if {index for _, index in scores} <= {"1"} else "davis2017"


def paper_tables(comparison: Comparison) -> tuple[PaperTable, ...]:
    """Returns the paper's Tables 1 to 4 with our finished configurations beside the rows they correspond to."""
    return tuple(_table(table, comparison.rows) for table in _published()["tables"])


def _table(table: dict[str, Any], rows: Sequence[Row]) -> PaperTable:
    groups = tuple((group["label"], tuple(group["columns"])) for group in table["groups"])
    datasets = [group["dataset"] for group in table["groups"] for _ in group["columns"]]
    columns = [column for group in table["groups"] for column in group["columns"]]
    lines = []
    matching = [
        [row for row in rows if line["match"] is not None and _matches(row, line["match"])] for line in table["rows"]
    ]
    contrasts = _contrasts(table["rows"], matching)
    for number, line in enumerate(table["rows"]):
        values = tuple(line["values"])
        ours = tuple(
            replace(_cells(row, line["match"], datasets, columns, values), contrast=contrasts.get((number, row.label)))
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


def _matches(row: Row, match: dict[str, Any]) -> bool:
    run = row.runs[0]
    if row.network.partition("-")[0] != match["network"]:
        return False
    if match["one_shot"] != (row.strategy != SUPERVISED) or row.strategy == EMPTY:
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
    words = evaluated_on(row)[1]
    places = _benchmarks(row)
    scored = [dataset for dataset in dict.fromkeys(datasets) if dataset in places]
    full_size = row.network in _FULL_SIZE[match["network"]]
    scores: list[Statistic | None] = []
    differences: list[float | None] = []
    for dataset, column, value in zip(datasets, columns, published, strict=True):
        # Scores on other data stand in the table's first group, marked, so that the row can be read at all.
        prefix = places.get(dataset, "final" if not scored and dataset == datasets[0] else "")
        score = row.statistic(f"{prefix}/{_METRICS.get(column, column.lower())}") if prefix else None
        scores.append(score)
        comparable = dataset in places and full_size and score is not None and value is not None
        differences.append(score.mean - value if comparable and score is not None and value is not None else None)
    reasons = []
    if not scored:
        reasons.append(f"scored on {words}")
    if not full_size:
        reasons.append(f"{row.network} is not the paper's network")
    if scored and len(scored) < len(set(datasets)):
        reasons.append(f"scored on {', '.join(scored)} only")
    if not any(scores):
        reasons.append(f"has no {columns[0]}")
    return OurCells(
        row.label,
        tuple("" if s is None else d if scored else words for d, s in zip(datasets, scores, strict=True)),
        len(row.finished),
        row.label_percent,
        tuple(scores),
        tuple(differences),
        ("not comparable: " if not any(d is not None for d in differences) else "") + "; ".join(reasons),
    )
