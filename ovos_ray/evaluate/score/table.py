"""The outcome of an evaluation: one row per object, and the numbers that papers print. All values in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.metrics import Statistics
from ovos_ray.io import atomic_path, write_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["ObjectScore", "Protocol", "ScoreTable", "protocol_for"]

Protocol = Literal["davis2016", "davis2017", "youtube-vos"]

_BY_LAYOUT: dict[str, Protocol] = {"davis2016": "davis2016", "youtube-vos": "youtube-vos"}
_COLUMNS = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")


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
        """J mean, recall, decay, F mean, recall, decay."""
        return (self.j.mean, self.j.recall, self.j.decay, self.f.mean, self.f.recall, self.f.decay)


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
        return _mean(row.j.mean for row in self.rows)

    @property
    def f(self) -> float:
        """Mean F over objects."""
        return _mean(row.f.mean for row in self.rows)

    @property
    def jf(self) -> float:
        """J&F, the mean of `j` and `f`."""
        return (self.j + self.f) / 2

    @property
    def summary(self) -> dict[str, float]:
        """The numbers the benchmark reports, in its order.

        davis: J&F, J and F mean, recall and decay. youtube-vos: G, J and F of seen and unseen categories; where the
        categories are not known, or all of one kind, G is not defined and the groups there are stand next to J&F.
        """
        if self.protocol != "youtube-vos":
            columns = zip(_COLUMNS, zip(*(row.values for row in self.rows), strict=True), strict=True)
            return {"J&F": self.jf} | {name.upper().replace("_", " "): _mean(column) for name, column in columns}
        groups: dict[str, float] = {}
        for suffix, seen in (("s", True), ("u", False)):
            rows = [row for row in self.rows if row.seen is seen]
            if rows:
                groups[f"J_{suffix}"] = _mean(row.j.mean for row in rows)
                groups[f"F_{suffix}"] = _mean(row.f.mean for row in rows)
        if len(groups) == 4:
            return {"G": _mean(groups.values())} | groups
        return {"J&F": self.jf, "J": self.j, "F": self.f} | groups

    def headline(self) -> dict[str, float]:
        """Returns `jf`, `j` and `f`, and `g` where it is defined: what training and tracking log."""
        scores = {"jf": self.jf, "j": self.j, "f": self.f}
        return scores | ({"g": self.summary["G"]} if "G" in self.summary else {})

    def to_csv(self) -> str:
        """Returns one line per sequence and object; youtube-vos adds category and seen."""
        extra = ("category", "seen") if self.protocol == "youtube-vos" else ()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("sequence", "object", *_COLUMNS, *extra))
        for row in self.rows:
            values = (f"{value:.6f}" for value in row.values)
            writer.writerow((row.sequence, row.object_id, *values, *(getattr(row, name) for name in extra)))
        return text.getvalue()

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
            | dict(zip(_COLUMNS, row.values, strict=True))
            | ({"category": row.category, "seen": row.seen} if self.protocol == "youtube-vos" else {})
            for row in self.rows
        ]
        return {"protocol": self.protocol, "summary": self.summary, "objects": rows, "notes": list(self.notes)}

    def render(self, *, per_object: bool = True) -> Table:
        """Returns a rich table: a line per object if asked for, and the means; or the summary in one line."""
        from rich.table import Table

        if not per_object:
            table = Table(title=f"{self.protocol}, percent", min_width=len(self.protocol) + 10)
            for name in self.summary:
                table.add_column(name, justify="right")
            table.add_row(*(f"{value:.1f}" for value in self.summary.values()))
            return table
        headline = {name: value for name, value in self.summary.items() if not name.endswith(("RECALL", "DECAY"))}
        numbers = ", ".join(f"{name.removesuffix(' MEAN')} {value:.1f}" for name, value in headline.items())
        title = f"{self.protocol}, percent: {numbers}"
        table = Table(title=title, min_width=len(title))
        table.add_column("sequence")
        table.add_column("object", justify="right")
        youtube = self.protocol == "youtube-vos"
        names = ("J", "F") if youtube else ("J mean", "recall", "decay", "F mean", "recall", "decay")
        for name in names:
            table.add_column(name, justify="right")
        for name in ("category", "seen") if youtube else ():
            table.add_column(name)
        lines = [(row.j.mean, row.f.mean) if youtube else row.values for row in self.rows]
        for row, values in zip(self.rows, lines, strict=True):
            seen = {None: "", True: "yes", False: "no"}[row.seen]
            table.add_row(
                row.sequence,
                str(row.object_id),
                *(f"{value:.1f}" for value in values),
                *((row.category or "", seen) if youtube else ()),
            )
        means = [f"{_mean(column):.1f}" for column in zip(*lines, strict=True)]
        table.add_section()
        table.add_row("all", str(len(self.rows)), *means, style="bold")
        return table


def protocol_for(layout: str) -> Protocol:
    """Returns how datasets of a layout are scored, unless somebody says otherwise."""
    return _BY_LAYOUT.get(layout, "davis2017")


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    if not values:
        raise EvaluationError("nothing was scored: no object in any sequence")
    return sum(values) / len(values)
