"""Comparison of a study's runs: which settings they differ in, and which of them make one row.

Nothing here reads MLflow; a `Study` goes in, and every number that the report shows comes out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.roles import settings_of
from ovos_ray.report.numbers.rows import Comparison, Row
from ovos_ray.report.runs import Run, Study, parse_json, printable
from ovos_ray.track.strategy import EMPTY, strategy_name

__all__ = ["STRATEGY", "axis_label", "compare", "skip_schedule", "value_label"]

_SETTINGS = settings_of(ExperimentConfig)
STRATEGY = "strategy"
"""Stands as an axis for `_STRATEGY_AXES` where more than the backward strategy differs."""
_STRATEGY_AXES = ("method.name", "method.reference", "method.backward")
_AXIS_LABELS = {
    STRATEGY: "strategy",
    "method.backward": "backward strategy",
    "network.name": "network",
    "data.clip_length": "clip length n",
    "data.max_skip": "skip schedule D",
    "data.static_share": "static steps",
    "pretrain.recipe": "pretraining",
    "method.name": "training",
    "optimizer.learning_rate": "learning rate",
}
_AXIS_SYMBOLS = {"data.clip_length": "n", "data.max_skip": "D", "optimizer.learning_rate": "lr"}
"""In a configuration's own label, where the words would be too long."""


def compare(study: Study) -> Comparison:
    """Groups the trials of a study by configuration and orders them by mean J&F."""
    trials = study.of_kind("trial")
    axes = _axes(trials)
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in trials:
        groups[tuple(_value(run, axis) for axis in axes)].append(run)
    named = _naming_axes(axes, groups)
    rows = []
    for values, runs in groups.items():
        settings = {axis: printable(value_label(axis, value)) for axis, value in zip(axes, values, strict=True)}
        kept = _newest_per_seed(runs)
        strategy, network = printable(strategy_of(runs[0])), printable(runs[0].param("network.name"))
        parts = [
            f"{_AXIS_SYMBOLS.get(axis, axis_label(axis))} {settings[axis]}"
            for axis in named
            if (axis, settings[axis]) != ("data.static_share", "none")
        ]
        label = " · ".join([part for part in (strategy, network) if part] + parts)
        rows.append(Row(label, "trial", strategy, network, settings, kept, len(runs) - len(kept)))
    return Comparison(study, axes, _ordered(rows), _ordered(_baselines(study)))


def _naming_axes(axes: Sequence[str], groups: Mapping[tuple[str, ...], Sequence[Run]]) -> list[str]:
    """Returns the axes without which two configurations of the same strategy and network would share a name."""
    heads = {values: (strategy_of(runs[0]), runs[0].param("network.name")) for values, runs in groups.items()}
    named: list[str] = []

    def names(chosen: Sequence[str]) -> int:
        places = [axes.index(axis) for axis in chosen]
        return len({(*heads[values], *(values[place] for place in places)) for values in groups})

    for axis in axes:
        if names([*named, axis]) > names(named):
            named.append(axis)
    return named


def _baselines(study: Study) -> list[Row]:
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study.of_kind("baseline"):
        groups[printable(run.tags.get("ovos.baseline", run.name)), printable(run.param("network.name"))].append(run)
    rows = []
    for (name, network), runs in groups.items():
        kept = _newest_per_seed(runs)
        label = f"{name} · {network}" if network else name
        rows.append(Row(label, "baseline", name, network, {}, kept, len(runs) - len(kept)))
    return rows


def _axes(trials: Sequence[Run]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for run in trials for key in run.params)
    pieces = {key for key in keys if key.rpartition(".")[2].isdigit() and key.rpartition(".")[0] in keys}
    axes = [
        key
        for key in keys
        if _is_axis(key) and key not in pieces and len({_value(run, key) for run in trials} - _silent(key)) > 1
    ]
    if "method.name" in axes or "method.reference" in axes:
        axes = [STRATEGY, *(axis for axis in axes if axis not in _STRATEGY_AXES)]
    # `pretrain` is null where there is none and has parts where there is one: the parts tell it all.
    axes = [axis for axis in axes if axis != "pretrain" or "pretrain.recipe" not in axes]
    known = list(_AXIS_LABELS)
    return tuple(sorted(axes, key=lambda axis: known.index(axis) if axis in known else len(known)))


def _is_axis(key: str) -> bool:
    """Whether runs that differ in it are different configurations; settings of earlier versions always."""
    return key not in _SETTINGS or _SETTINGS[key].role.is_axis


def _value(run: Run, axis: str) -> str:
    """The value of a setting; empty where it has no effect: that for an empty reference, in runs without one."""
    if axis == STRATEGY:
        return strategy_of(run)
    if axis == "method.empty_objects" and strategy_of(run) != EMPTY:
        return ""
    return run.param(axis)


def _silent(axis: str) -> set[str]:
    """Values of a setting that are no difference: the empty one, of runs in which it has no effect."""
    return {""} if axis == "method.empty_objects" else set()


def _newest_per_seed(runs: Sequence[Run]) -> tuple[Run, ...]:
    """One run a seed: a finished one before others, then the newest."""
    chosen: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: (run.status == "finished", run.start_ms)):
        chosen[run.run_id if run.seed is None else run.seed] = run
    return tuple(sorted(chosen.values(), key=lambda run: (run.seed is None, run.seed or 0, run.start_ms)))


def _ordered(rows: list[Row]) -> tuple[Row, ...]:
    def rank(row: Row) -> tuple[float, str]:
        statistic = row.score
        return (math.inf if statistic is None else -statistic.mean, row.label)

    return tuple(sorted(rows, key=rank))


def strategy_of(run: Run) -> str:
    """Returns how the run was trained, in the paper's words."""
    method, reference, backward = (run.param(f"method.{key}") for key in ("name", "reference", "backward"))
    return strategy_name(method, reference, backward) or run.name


def axis_label(axis: str) -> str:
    """Returns the words for a configuration key."""
    return _AXIS_LABELS.get(axis, axis.rpartition(".")[2].replace("_", " "))


def skip_schedule(value: object) -> list[tuple[float, float]]:
    """Returns the (start, D) of a curriculum as it was read from JSON; nothing if it is none."""
    try:
        return [(float(start), skip) for start, skip in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return []


def value_label(axis: str, text: str) -> str:
    """Returns a parameter's value as a reader wants it: `5→10→15` for a skip schedule, `none` for no pretraining."""
    if not text:
        return "none"
    value = parse_json(text)
    if axis in ("data.max_skip", "data.static_share") and (steps := skip_schedule(value)):
        return "→".join(f"{step:g}" for _, step in steps)
    if value is None or value == []:
        return "none"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return " + ".join(PurePath(item).name for item in value)
    if isinstance(value, float):
        return f"{value:.3g}"
    if text.startswith("/") or "://" in text:
        return PurePath(text).name
    if axis == "method.name":
        return text.replace("_", "-")
    return text.rpartition(".")[2] if axis == "pretrain.recipe" else text
