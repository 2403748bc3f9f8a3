"""Score table of an evaluation: one row per object, and the numbers that papers print. All values in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.metrics import COLUMNS, COMPARED, MEASURES, PRIMARY, Measure, Statistics
from ovos_ray.io import atomic_path, write_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["ObjectScore", "Protocol", "ScoreTable", "csv_cell", "csv_text", "protocol_for"]

Protocol = Literal["davis2016", "davis2017", "youtube-vos"]

_FORMULA = frozenset("=+-@\t\r'")
_BY_LAYOUT: dict[str, Protocol] = {"davis2016": "davis2016", "youtube-vos": "youtube-vos"}


@dataclass(frozen=True)
class ObjectScore:
    """One object of one sequence.

    Attributes:
        sequence: Name of the sequence.
        object_id: Its index in the masks (davis2016: 1, all objects merged).
        num_frames: Frames scored.
        j: Region similarity over time, in percent.
        f: Boundary accuracy over time, in percent.
        category: YouTube-VOS category, if `meta.json` has it.
        seen: Whether the category occurs in the training set; None where that is not known.
    """

    sequence: str
    object_id: int
    num_frames: int
    j: Statistics
    f: Statistics
    category: str | None = None
    seen: bool | None = None

    @property
    def values(self) -> tuple[float, ...]:
        """The values of `COLUMNS`, in percent."""
        return tuple(self.value(measure.series[0], measure.statistic) for measure in MEASURES if measure.column)

    def value(self, series: str, statistic: str) -> float:
        """Returns a statistic of a series, such as `j`, `recall`."""
        return float(getattr(getattr(self, series), statistic))


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a set of sequences. Every object counts equally, whatever its sequence.

    Attributes:
        protocol: The protocol scored under.
        rows: One per object, in the order of sequences and ids.
        notes: What a reader of the numbers should know.
    """

    protocol: Protocol
    rows: tuple[ObjectScore, ...]
    notes: tuple[str, ...] = ()

    @property
    def j(self) -> float:
        """Mean J over objects."""
        return self._over_objects("j", "mean")

    @property
    def f(self) -> float:
        """Mean F over objects."""
        return self._over_objects("f", "mean")

    @property
    def jf(self) -> float:
        """J&F, the mean of `j` and `f`."""
        return self.value(PRIMARY)

    def value(self, measure: Measure) -> float:
        """Returns a measure of all objects."""
        return _mean(self._over_objects(series, measure.statistic) for series in measure.series)

    def _over_objects(self, series: str, statistic: str, *, seen: bool | None = None) -> float:
        return _mean(row.value(series, statistic) for row in self.rows if seen is None or row.seen is seen)

    @property
    def summary(self) -> dict[str, float]:
        """The numbers the benchmark reports, in its order.

        davis: J&F, J and F mean, recall and decay. youtube-vos: G, J and F of seen and unseen categories; where the
        categories are not known, or all of one kind, G is not defined and the groups there are stand next to J&F.
        """
        if self.protocol != "youtube-vos":
            return {(m.column.replace("_", " ").upper() or m.label): self.value(m) for m in MEASURES}
        groups = {
            f"{series.upper()}_{suffix}": self._over_objects(series, "mean", seen=seen)
            for suffix, seen in (("s", True), ("u", False))
            if any(row.seen is seen for row in self.rows)
            for series in PRIMARY.series
        }
        if len(groups) == 2 * len(PRIMARY.series):
            return {"G": _mean(groups.values())} | groups
        return {m.label: self.value(m) for m in COMPARED} | groups

    def headline(self) -> dict[str, float]:
        """Returns what training and tracking log: `jf`, `j` and `f`, and `g` where it is defined."""
        scores = {measure.key: self.value(measure) for measure in COMPARED}
        return scores | ({"g": self.summary["G"]} if "G" in self.summary else {})

    def to_csv(self) -> str:
        """Returns one line per sequence and object; youtube-vos adds category and seen."""
        extra = ("category", "seen") if self.protocol == "youtube-vos" else ()
        lines: list[tuple[object, ...]] = [("sequence", "object", *COLUMNS, *extra)]
        for row in self.rows:
            values = (_Number(f"{value:.6f}") for value in row.values)
            lines.append((row.sequence, row.object_id, *values, *(getattr(row, name) for name in extra)))
        return csv_text(lines)

    def write_csv(self, path: str | PathLike[str]) -> None:
        """Writes `to_csv`, atomically."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_csv(), encoding="utf-8")

    def write_json(self, path: str | PathLike[str]) -> None:
        """Writes `as_dict`, atomically."""
        write_json(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Returns plain types only: protocol, summary, rows and notes."""
        rows = [
            {"sequence": row.sequence, "object": row.object_id, "frames": row.num_frames}
            | dict(zip(COLUMNS, row.values, strict=True))
            | ({"category": row.category, "seen": row.seen} if self.protocol == "youtube-vos" else {})
            for row in self.rows
        ]
        return {"protocol": self.protocol, "summary": self.summary, "objects": rows, "notes": list(self.notes)}

    def render(self, *, per_object: bool = True) -> Table:
        """Returns a rich table: a line per object if asked for, and the means; or the summary in one line."""
        return self._objects() if per_object else self._summary()

    def _summary(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{self.protocol}, percent", min_width=len(self.protocol) + 10)
        for name in self.summary:
            table.add_column(name, justify="right")
        table.add_row(*(f"{value:.1f}" for value in self.summary.values()))
        return table

    def _objects(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        youtube = self.protocol == "youtube-vos"
        headline = self.summary if youtube else {m.label: self.value(m) for m in COMPARED}
        title = f"{self.protocol}, percent: " + ", ".join(f"{name} {value:.1f}" for name, value in headline.items())
        table = Table(title=title, min_width=len(title))
        table.add_column("sequence")
        table.add_column("object", justify="right")
        shown = [m for m in MEASURES if m.column and (m.compared or not youtube)]
        for measure in shown:
            mean = measure.label if youtube else f"{measure.label} mean"
            table.add_column(mean if measure.statistic == "mean" else measure.statistic, justify="right")
        for name in ("category", "seen") if youtube else ():
            table.add_column(name)
        lines = [[row.value(m.series[0], m.statistic) for m in shown] for row in self.rows]
        for row, values in zip(self.rows, lines, strict=True):
            kind = (Text(row.category or ""), {None: "", True: "yes", False: "no"}[row.seen]) if youtube else ()
            table.add_row(Text(row.sequence), str(row.object_id), *(f"{value:.1f}" for value in values), *kind)
        means = [f"{_mean(column):.1f}" for column in zip(*lines, strict=True)]
        table.add_section()
        table.add_row("all", str(len(self.rows)), *means, style="bold")
        return table


class _Number(str):
    """A number as it is to be printed."""


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    """Returns lines of cells as CSV that a spreadsheet shows and does not run.

    Text that begins as a formula does gets an apostrophe, as spreadsheets write it; `csv_cell` takes it off again.
    """
    text = io.StringIO()
    safe = ([f"'{cell}" if type(cell) is str and cell[:1] in _FORMULA else cell for cell in line] for line in lines)
    csv.writer(text, lineterminator="\n").writerows(safe)
    return text.getvalue()


def csv_cell(text: str) -> str:
    """Returns a cell of `csv_text` as it was."""
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULA else text


def protocol_for(layout: str) -> Protocol:
    """Returns how datasets of a layout are scored, unless somebody says otherwise."""
    return _BY_LAYOUT.get(layout, "davis2017")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    if not values:
        raise EvaluationError("nothing was scored: no object in any sequence")
    return sum(values) / len(values)
