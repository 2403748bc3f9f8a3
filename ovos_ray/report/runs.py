"""Run and study as MLflow held them: settings, tags, last metrics, curves and scores per sequence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ovos_ray.evaluate.metrics import PRIMARY

__all__ = ["SELECTION", "Curve", "Run", "Scores", "Study", "parse_json", "printable"]

Curve = tuple[tuple[int, float], ...]
"""(optimiser step, value), ascending."""

Scores = Mapping[tuple[str, str], Mapping[str, float]]
"""(sequence, object) → `j_mean`, `f_mean`, … in percent; YouTube-VOS adds `seen`, 1 or 0."""

SELECTION = f"val/{PRIMARY.key}"
"""The curve on the selection split."""


@dataclass(frozen=True)
class Run:
    """One MLflow run of a study.

    Attributes:
        run_id: MLflow's id.
        name: The name shown.
        kind: `sweep`, `trial`, `segment` (of a population's member, before its last one), `baseline`, `pretraining` or
            `other` (tag `ovos.kind`).
        status: `finished`, `running`, `failed`, `killed`, or `stopped` early by a scheduler (tag `ovos.stopped_early`).
        seed: The run's seed, or None.
        params: The flat configuration, as MLflow keeps it: text.
        tags: All tags.
        metrics: Last value of every metric.
        start_ms: Start, milliseconds since the epoch.
        end_ms: End, or None while it runs.
        parent_id: MLflow id of the sweep, or None.
        curves: Chosen metrics over steps; of a population's member, those of the segments before it too.
        scores: Contents of `scores.csv`; empty without one.
        also: The same of further datasets (`evaluation.also`), by their names; their metrics are `final/NAME/jf`, ….
        artifact_uri: Where its artifacts lie.
    """

    run_id: str
    name: str
    kind: str
    status: str
    seed: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    start_ms: int
    end_ms: int | None = None
    parent_id: str | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    also: Mapping[str, Scores] = field(default_factory=dict)
    artifact_uri: str = ""

    def source(self, part: str) -> str:
        """Returns where the videos of `validation` or `evaluation` lie: a folder, shards, or nowhere (empty)."""
        return self.param(f"{part}.root") or self.param(f"{part}.shards")

    def param(self, key: str, default: str = "") -> str:
        """Returns a parameter, joined again where it was cut for the server; empty where it is None."""
        text = self.params.get(key, default)
        part = 1
        while f"{key}.{part}" in self.params:
            text += self.params[f"{key}.{part}"]
            part += 1
        return "" if text == "null" else text

    @property
    def score(self) -> float | None:
        """The number that it is compared by, in percent; None where it was not scored."""
        score = self.metrics.get(f"final/{PRIMARY.key}")
        return score if score is not None and math.isfinite(score) else None

    @property
    def last_step(self) -> int | None:
        """The last optimiser step that any curve shows; of a run stopped early, the one at which that was decided."""
        if self.status == "stopped":  # its worker went on until it was ended
            return _integer(self.tags["ovos.stopped_early"])
        steps = [curve[-1][0] for curve in self.curves.values() if curve]
        return max(steps) if steps else None

    @property
    def label_percent(self) -> float | None:
        """Labelled frames in percent of all training frames."""
        try:
            return float(self.tags["ovos.label_percent"])
        except (KeyError, ValueError):
            return None

    @property
    def labels(self) -> Mapping[str, int]:
        """Labelled frames by what they were used for (`run.labels.Labels.as_dict`), empty if not logged."""
        prefix = "ovos.labels."
        return {
            key.removeprefix(prefix): number
            for key, text in self.tags.items()
            if key.startswith(prefix) and (number := _integer(text)) is not None
        }


@dataclass(frozen=True)
class Study:
    """An MLflow experiment.

    Attributes:
        experiment: Its name.
        experiment_id: MLflow's id.
        tracking_uri: Where it was read.
        runs: All its active runs, oldest first.
    """

    experiment: str
    experiment_id: str
    tracking_uri: str
    runs: tuple[Run, ...]

    def of_kind(self, *kinds: str) -> tuple[Run, ...]:
        """Returns the runs of some kinds."""
        return tuple(run for run in self.runs if run.kind in kinds)


def parse_json(text: str) -> Any:
    """Reads a parameter that was written as JSON; text that is not JSON stays text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def printable(text: str) -> str:
    """Returns a name in one line without control characters, whatever a store or a file holds."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _integer(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None
