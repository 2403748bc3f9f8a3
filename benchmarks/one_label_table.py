"""Tables of `one_label.py`: J&F with 95 % intervals over seeds, and the share of full supervision."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from claims import interval

__all__ = [
    "BEGIN",
    "BEGIN_SWITCHES",
    "END",
    "END_SWITCHES",
    "gather",
    "make_table",
    "read_rows",
    "switches_of",
    "tables_of",
    "write_tables",
]

_YARDSTICKS = ("supervised-warm-layers", "supervised-warm", "supervised-half")
"""Full supervision with a warm-up of layers or of affine clips, or with as many static steps as the methods with one
label: the one with most seeds and, of those, the best."""
_BASELINES = ("static-only", "layers-only")
"""Static clips of one label a video and nothing else, chosen alike."""
_SWITCHES = {
    "`data.static_share`: walks after half of the steps": (("static-half", "one-shot"), ("layers-half", "one-shot")),
    "`data.static_share`: walks after a quarter": (("static-clips", "one-shot"), ("layers-clips", "one-shot")),
    "`data.static_share`: no walks": (("static-only", "one-shot"), ("layers-only", "one-shot")),
    "`data.static_clips=layers`, no walks": (("layers-only", "static-only"),),
    "`data.static_clips=pasted`, no walks": (("pasted-only", "static-only"),),
    "`method.further_labels=compare`, two labels": (("one-shot-2", "one-shot"),),
    "`method.further_labels=compare`, two labels, beside static clips": (
        ("static-half-2", "static-half"),
        ("layers-clips-2", "layers-clips"),
    ),
    "`method.reference=true` (all labels)": (("oracle", "one-shot"),),
    "`data.frame_sampling=grown`": (("one-shot-grown", "one-shot"),),
    "`method.rollout_memory=all`": (("one-shot-all-memory", "one-shot"),),
    "`train.ema_decay=0.99`": (("averaged", "one-shot"),),
    "`train.ema_decay=0.99`, beside static clips": (("averaged", "static-half"), ("averaged", "layers-clips")),
}
"""By switch, the runs that have it and those that do not; the first pair that was run counts."""
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
BEGIN_SWITCHES, END_SWITCHES = "<!-- switches -->", "<!-- /switches -->"
Group = tuple[str, str, int]
"""Data, network and steps."""
Scores = Mapping[str, Mapping[int, float]]
"""From method to seed to J&F."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the lines of a CSV file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_tables(out: Path, page: Path | None = None) -> None:
    """Writes `tables.md` from `runs.csv`, and prints it; a page gets it, and what switches add, between its marks."""
    text = tables_of(out)
    (out / "tables.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    if page is not None:
        content = page.read_text(encoding="utf-8")
        for begin, end, new in ((BEGIN, END, text), (BEGIN_SWITCHES, END_SWITCHES, switches_of(out))):
            before, found, rest = content.partition(begin)
            if found:
                content = f"{before}{begin}\n{new}\n{end}{rest.partition(end)[2]}"
        page.write_text(content, encoding="utf-8")


def tables_of(out: Path) -> str:
    """Returns the tables of a folder: J&F by data set, network and length, and how right forward masks were."""
    groups, averaged, labels = _read(out)
    tables = []
    for group, scores in sorted(groups.items()):
        more = {
            name: [value - scores[name][seed] for seed, value in own.items()] for name, own in averaged[group].items()
        }
        tables.append(f"**{', '.join(map(str, group))} steps**\n\n{make_table(scores, more, labels[group])}")
    return "\n\n".join([*tables, *_forward_masks(out)])


def switches_of(out: Path) -> str:
    """Returns what each switch alone adds, seed by seed, by data set, network and length."""
    groups, averaged, _ = _read(out)
    names = sorted(groups)
    lines = [f"| | {' | '.join(f'{data}, {network}, {steps}' for data, network, steps in names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for switch, pairs in _SWITCHES.items():
        cells = []
        for group in names:
            found = ""
            for one, other in pairs:
                own = averaged[group].get(other, {}) if one == "averaged" else groups[group].get(one, {})
                if differences := [a - b for a, b in _paired(own, groups[group].get(other, {}))]:
                    found = f"{_mean(differences, signed=True)} ({len(differences)})"
                    break
            cells.append(found)
        if any(cells):
            lines.append(f"| {switch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _read(out: Path) -> tuple[Mapping[Group, Scores], Mapping[Group, Scores], Mapping[Group, Mapping[str, str]]]:
    """J&F of the last and of the averaged weights by group, method and seed, and the labels by group and method."""
    groups: dict[Group, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    averaged: dict[Group, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    labels: dict[Group, dict[str, str]] = defaultdict(dict)
    for row in read_rows(out / "runs.csv"):
        group, method, seed = (row["data"], row["network"], int(row["steps"])), row["method"], int(row["seed"])
        groups[group][method][seed] = float(row["jf"])
        labels[group][method] = row["labels"]
        if row["ema_jf"]:
            averaged[group][method][seed] = float(row["ema_jf"])
    return groups, averaged, labels


def _forward_masks(out: Path) -> Iterator[str]:
    """Yields a table of the IoU of forward masks with the labels they do not see, and of their identities.

    Of traced runs alone: a run with a few labels knows it of the few clips whose walk turns at one.
    """
    found: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(out / "curves.csv"):
        if row["method"].endswith("-traced") and row["name"] in ("reference_iou", "reference_identity"):
            place = round(8 * int(row["step"]) / int(row["steps"]))
            line = row["data"], row["network"], row["steps"], row["method"]
            found[line][f"{place} {row['name']}"].append(100 * float(row["value"]))
    if not found:
        return
    head = [f"after {place}/8" for place in range(1, 9)]
    lines = [f"| forward mask: IoU (identity) | {' | '.join(head)} |", "|---" * 9 + "|"]
    for (data, network, steps, method), values in sorted(found.items()):
        cells = []
        for place in range(1, 9):
            pair = [values.get(f"{place} {name}") for name in ("reference_iou", "reference_identity")]
            means = [f"{statistics.mean(value):.0f}" for value in pair if value]
            cells.append(f"{means[0]} ({means[1]})" if len(means) == 2 else "")
        lines.append(f"| {data}, {network}, {steps} steps, {method} | {' | '.join(cells)} |")
    yield "\n".join(lines)


def gather(sources: Sequence[Path], out: Path) -> None:
    """Adds the lines of other folders that are not there yet, of the curves those of the forward masks alone."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("runs.csv", "videos.csv", "curves.csv"):
        lines = [line for folder in (out, *sources) for line in _lines(folder / name)]
        if not lines:
            continue
        kept = {lines[0]: None}  # the names of the columns
        for line in lines[1:]:
            if name != "curves.csv" or any(f",reference_{what}," in line for what in ("iou", "identity", "confidence")):
                kept[line] = None
        (out / name).write_text("\n".join(kept) + "\n", encoding="utf-8")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def make_table(scores: Scores, averaged: Mapping[str, Sequence[float]], labels: Mapping[str, str]) -> str:
    """Returns a Markdown table, the best method first.

    Shares and differences are of the same seeds: each seed's J&F over that of full supervision, and less that of static
    clips only.

    Args:
        scores: J&F in percent.
        averaged: By method, what the averaged weights have more, run by run.
        labels: By method, how many labelled frames it reads.
    """
    yardstick, baseline = (
        max(names, key=lambda name: (len(own := scores.get(name, {})), sum(own.values())))
        for names in (_YARDSTICKS, _BASELINES)
    )
    lines = [
        f"| method | labels | J&F, seeds | J&F | % of {yardstick} | less {baseline} | worst seed | averaged weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in sorted(scores, key=lambda name: -statistics.mean(scores[name].values())):
        own = scores[method]
        shares = [100 * a / b for a, b in _paired(own, scores.get(yardstick, {}))]
        differences = [a - b for a, b in _paired(own, scores.get(baseline, {}))]
        worst = f"{min(differences):+.1f}" if differences and method != baseline else ""
        seeds = " ".join(f"{own[seed]:.1f}" for seed in sorted(own))
        lines.append(
            f"| {method} | {labels.get(method, '')} | {seeds} | {_mean(list(own.values()))} | "
            f"{_mean(shares) if method != yardstick else ''} | "
            f"{_mean(differences, signed=True) if method != baseline else ''} | {worst} | "
            f"{_mean(averaged.get(method, ()), signed=True)} |"
        )
    return "\n".join(lines)


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> list[tuple[float, float]]:
    return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]


def _mean(values: Sequence[float], *, signed: bool = False) -> str:
    """The mean and, of two seeds and more, half the width of Student's 95 % interval."""
    if not values:
        return ""
    half = interval(np.array(values)[:, None]).half_width(0.05) if len(values) > 1 else None
    return f"{statistics.mean(values):{'+' if signed else ''}.1f}" + ("" if half is None else f" ± {half:.1f}")
