"""Tables of `one_label.py`: J&F with 95 % intervals over seeds, and the share of full supervision."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from claims import interval

__all__ = ["make_table", "read_rows", "write_tables"]

_YARDSTICK, _BASELINE = "supervised-warm", "static-only"
Scores = Mapping[str, Mapping[int, float]]
"""From method to seed to J&F."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the lines of a CSV file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_tables(out: Path) -> None:
    """Writes `tables.md` from `runs.csv`, and prints it."""
    groups: dict[tuple[str, str, int], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    averaged: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(out / "runs.csv"):
        group = row["data"], row["network"], int(row["steps"])
        groups[group][row["method"]][int(row["seed"])] = float(row["jf"])
        if row["ema_jf"]:
            averaged[group][row["method"]].append(float(row["ema_jf"]) - float(row["jf"]))
    text = "\n\n".join(
        f"**{data}, {network}, {steps} steps**\n\n{make_table(scores, averaged[data, network, steps])}"
        for (data, network, steps), scores in sorted(groups.items())
    )
    (out / "tables.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)


def make_table(scores: Scores, averaged: Mapping[str, Sequence[float]]) -> str:
    """Returns a Markdown table, the best method first.

    Shares and differences are of the same seeds: each seed's J&F over that of full supervision with the same warm-up,
    and less that of static clips only.

    Args:
        scores: J&F in percent.
        averaged: By method, what the averaged weights have more, run by run.
    """
    lines = [
        f"| method | J&F, seeds | J&F | % of {_YARDSTICK} | less {_BASELINE} | worst seed | averaged weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in sorted(scores, key=lambda name: -statistics.mean(scores[name].values())):
        own = scores[method]
        shares = [100 * a / b for a, b in _paired(own, scores.get(_YARDSTICK, {}))]
        differences = [a - b for a, b in _paired(own, scores.get(_BASELINE, {}))]
        worst = f"{min(differences):+.1f}" if differences and method != _BASELINE else ""
        seeds = " ".join(f"{own[seed]:.1f}" for seed in sorted(own))
        lines.append(
            f"| {method} | {seeds} | {_mean(list(own.values()))} | {_mean(shares) if method != _YARDSTICK else ''} | "
            f"{_mean(differences, signed=True) if method != _BASELINE else ''} | {worst} | "
            f"{_mean(averaged.get(method, ()), signed=True)} |"
        )
    return "\n".join(lines)


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> list[tuple[float, float]]:
    return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


def _mean(values: Sequence[float], *, signed: bool = False) -> str:
    """The mean and, of two seeds and more, half the width of Student's 95 % interval."""
    if not values:
        return ""
    half = interval(np.array(values)[:, None]).seeds
    return f"{statistics.mean(values):{'+' if signed else ''}.1f}" + ("" if half is None else f" ± {half:.1f}")
