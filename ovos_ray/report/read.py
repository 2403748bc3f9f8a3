"""What MLflow holds of one study, read once: runs, their curves and their per-sequence scores."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import statistics
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ovos_ray.errors import TrackingError
from ovos_ray.evaluate.metrics import COLUMNS, PRIMARY
from ovos_ray.track.sender import connect
from ovos_ray.track.servers import resolve_tracking_uri

__all__ = ["SELECTION", "Curve", "Run", "Scores", "Study", "load_study", "parse_json", "read_scores", "seen_and_unseen"]

_log = logging.getLogger(__name__)
_PAGE = 1000
_READERS = 8

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
        return self.metrics.get(f"final/{PRIMARY.key}")

    @property
    def last_step(self) -> int | None:
        """The last optimiser step that any curve shows; of a run stopped early, the one at which that was decided."""
        if self.status == "stopped":  # its worker went on until it was ended
            return int(self.tags["ovos.stopped_early"])
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
            key.removeprefix(prefix): int(text)
            for key, text in self.tags.items()
            if key.startswith(prefix) and text.isdigit()
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


def load_study(
    experiment: str,
    tracking_uri: str,
    *,
    curves: Iterable[str] = (SELECTION, "train/iou", "train/loss", "train/reference_copy"),
    scores: bool = True,
) -> Study:
    """Reads an experiment.

    Args:
        experiment: Name of the MLflow experiment.
        tracking_uri: Where MLflow keeps it.
        curves: Metrics whose whole history is read; none makes reading much faster.
        scores: Whether `scores.csv` artifacts are read.

    Raises:
        TrackingError: The store cannot be reached, or has no such experiment.
    """
    uri = resolve_tracking_uri(tracking_uri)
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise TrackingError(
            f"there is no tracking store {path}", "name another with tracking_uri, or run a sweep first"
        )
    try:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = sorted(e.name for e in client.search_experiments())
            raise TrackingError(f"{uri} has no experiment {experiment!r}", f"it has: {', '.join(names)}")
        runs = []
        token = None
        while True:
            page = client.search_runs(
                [found.experiment_id], max_results=_PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            runs.extend(page)
            token = page.token
            if not token:
                break
        with ThreadPoolExecutor(_READERS) as readers:
            read = readers.map(lambda run: _read_run(client, run, tuple(curves), scores), runs)
            return Study(experiment, str(found.experiment_id), uri, _with_lineage(_with_parents(tuple(read))))
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(
            f"the tracking store {uri} cannot be read: {str(error).splitlines()[0]}",
            "check tracking_uri and the server",
        ) from error


def _with_parents(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """What other runs are nested under is a sweep, whatever its tags say: it must not count as a trial."""
    parents = {run.parent_id for run in runs}
    return tuple(dataclasses.replace(run, kind="sweep") if run.run_id in parents else run for run in runs)


def _with_lineage(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Lets a segment's curves begin with those of the segments it descends from (`study/population.py`)."""
    segments = {(run.parent_id, run.name): run for run in runs if "ovos.member" in run.tags}

    def whole(run: Run, key: str) -> Curve:
        before = segments.get((run.parent_id, run.tags.get("ovos.parent_segment", "")))
        return (whole(before, key) if before is not None else ()) + run.curves.get(key, ())

    return tuple(
        dataclasses.replace(run, curves={key: whole(run, key) for key in run.curves}) if run.kind == "trial" else run
        for run in runs
    )


def _read_run(client: Any, run: Any, curves: tuple[str, ...], scores: bool) -> Run:
    tags, metrics = dict(run.data.tags), dict(run.data.metrics)
    status = str(run.info.status).lower()
    if status == "finished" and tags.get("ovos.stopped_early"):
        status = "stopped"
    if status == "scheduled":
        status = "running"
    seed = tags.get("ovos.seed", run.data.params.get("seed"))
    read: dict[str, Curve] = {}
    for key in curves:
        if key in metrics:
            points = {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)}
            read[key] = tuple(sorted(points.items()))
    has_scores = scores and any(key.startswith("final/") for key in metrics)
    table = _fetch_scores(client, run, "scores.csv") if has_scores else {}
    others = {key.split("/")[1] for key in metrics if key.startswith("final/") and key.count("/") == 2}
    also = {name: _fetch_scores(client, run, f"scores-{name}.csv") for name in sorted(others) if scores}
    derived = seen_and_unseen("final", table)
    for name, other in also.items():
        derived |= seen_and_unseen(f"final/{name}", other)
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id[:8],
        kind=tags.get("ovos.kind", "other"),
        status=status,
        seed=int(seed) if seed is not None and seed.lstrip("-").isdigit() else None,
        params=dict(run.data.params),
        tags=tags,
        metrics={**derived, **metrics},
        start_ms=run.info.start_time,
        end_ms=run.info.end_time,
        parent_id=tags.get("mlflow.parentRunId"),
        curves=read,
        scores=table,
        also=also,
    )


def seen_and_unseen(prefix: str, scores: Scores) -> dict[str, float]:
    """Returns YouTube-VOS' five numbers, means over the objects of each group; empty unless both groups occur."""
    means = {
        f"{prefix}/{key}_{group}": statistics.fmean(values)
        for group, seen in (("s", 1.0), ("u", 0.0))
        for key in PRIMARY.series
        if (values := [row[f"{key}_mean"] for row in scores.values() if row.get("seen") == seen])
    }
    return {f"{prefix}/g": statistics.fmean(means.values()), **means} if len(means) == 2 * len(PRIMARY.series) else {}


def _fetch_scores(client: Any, run: Any, name: str) -> Scores:
    local = str(run.info.artifact_uri).removeprefix("file://")
    if local.startswith("/"):
        path = Path(local) / name
        return read_scores(path) if path.exists() else {}
    if not any(item.path == name for item in client.list_artifacts(run.info.run_id)):
        return {}
    with TemporaryDirectory() as folder:
        return read_scores(Path(client.download_artifacts(run.info.run_id, name, folder)))


def read_scores(path: Path) -> Scores:
    """Reads a `scores.csv`: one line per sequence and object, scores in percent.

    A damaged file is named in the log and counts as absent: a report must not fail for one run.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = {}
            for line in csv.DictReader(file):
                values = {key: float(line[key]) for key in COLUMNS if line.get(key)}
                if line.get("seen"):
                    values["seen"] = float(line["seen"] == "True")
                table[line["sequence"], line["object"]] = values
            return table
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("scores in %s cannot be read: %s", path, error)
        return {}


def parse_json(text: str) -> Any:
    """Reads a parameter that was written as JSON; text that is not JSON stays text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
