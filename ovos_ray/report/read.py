"""Reading a study from MLflow, once: runs, their curves, their scores per sequence, their artifacts."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import statistics
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from ovos_ray.errors import TrackingError, first_line
from ovos_ray.evaluate.metrics import COLUMNS, PRIMARY
from ovos_ray.evaluate.score.table import csv_cell
from ovos_ray.report.runs import SELECTION, Curve, Run, Scores, Study, printable
from ovos_ray.track.sender import connect
from ovos_ray.track.servers import resolve_tracking_uri

__all__ = ["fetch_artifact", "load_study", "read_scores", "seen_and_unseen"]

_log = logging.getLogger(__name__)
_PAGE = 1000
_READERS = 8
_MOST_BYTES = 2**26  # of an artifact; scores and pictures are small


def load_study(
    experiment: str,
    tracking_uri: str,
    *,
    curves: Iterable[str] = (SELECTION, "train/iou", "train/loss", "train/reference_copy"),
) -> Study:
    """Reads an experiment.

    Args:
        experiment: Name of the MLflow experiment.
        tracking_uri: Where MLflow keeps it.
        curves: Metrics whose whole history is read; none makes reading much faster.

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
            read = readers.map(lambda run: _read_run(client, run, tuple(curves)), runs)
            return Study(experiment, str(found.experiment_id), uri, _with_lineage(_with_parents(tuple(read))))
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(
            f"the tracking store {uri} cannot be read: {first_line(error)}",
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


def _read_run(client: Any, run: Any, curves: tuple[str, ...]) -> Run:
    tags, metrics = dict(run.data.tags), dict(run.data.metrics)
    table, also = _read_scores_of(client, run, metrics)
    derived = seen_and_unseen("final", table)
    for name, other in also.items():
        derived |= seen_and_unseen(f"final/{name}", other)
    return Run(
        run_id=run.info.run_id,
        name=printable(run.info.run_name or run.info.run_id[:8]),
        kind=tags.get("ovos.kind", "other"),
        status=_status(run, tags),
        seed=_seed(tags.get("ovos.seed", run.data.params.get("seed"))),
        params=dict(run.data.params),
        tags=tags,
        metrics={**derived, **metrics},
        start_ms=run.info.start_time,
        end_ms=run.info.end_time,
        parent_id=tags.get("mlflow.parentRunId"),
        curves={key: _read_curve(client, run, key) for key in curves if key in metrics},
        scores=table,
        also=also,
        artifact_uri=str(run.info.artifact_uri),
    )


def _status(run: Any, tags: Mapping[str, str]) -> str:
    """Returns MLflow's word for how a run goes, or ours where it has none; see `Run.status`."""
    status = str(run.info.status).lower()
    if status == "finished" and tags.get("ovos.stopped_early"):
        return "stopped"
    return "running" if status == "scheduled" else status


def _seed(text: str | None) -> int | None:
    is_number = text is not None and text.removeprefix("-").isdecimal() and len(text) < 19
    return int(text) if text is not None and is_number else None


def _read_curve(client: Any, run: Any, key: str) -> Curve:
    # By step, since a store may hold one twice.
    points = {point.step: point.value for point in client.get_metric_history(run.info.run_id, key)}
    return tuple(sorted(points.items()))


def _read_scores_of(client: Any, run: Any, metrics: Mapping[str, float]) -> tuple[Scores, dict[str, Scores]]:
    """Returns the scores by object on the run's main dataset, and those on others by their names.

    Only what was scored is fetched; that shows in the metrics, `final/jf` and `final/NAME/jf`.
    """
    final = [key.split("/")[1:] for key in metrics if key.startswith("final/")]
    others = sorted({name for name, *rest in final if len(rest) == 1})
    main = _fetch_scores(client, run, "scores.csv") if final else {}
    return main, {name: _fetch_scores(client, run, f"scores-{name}.csv") for name in others}


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
    with TemporaryDirectory() as folder:
        path = _fetch(client, run.info.run_id, str(run.info.artifact_uri), name, folder)
        return {} if path is None else read_scores(path)


def fetch_artifact(tracking_uri: str, run: Run, name: str) -> bytes | None:
    """Returns what a run has logged under a name; None where there is none, or it cannot be had."""
    with TemporaryDirectory() as folder:
        path = _fetch(connect(tracking_uri), run.run_id, run.artifact_uri, name, folder)
        return None if path is None else path.read_bytes()


def _fetch(client: Any, run_id: str, artifact_uri: str, name: str, folder: str) -> Path | None:
    """Finds an artifact, or fetches it into a folder. What cannot be had costs a run's part, not the report."""
    try:
        if artifact_uri.startswith(("/", "file:///")):
            # Without the client's copy; a URI spells a study's name in percent signs.
            is_path = artifact_uri.startswith("/")
            path = Path(artifact_uri if is_path else unquote(artifact_uri.removeprefix("file://"))) / name
            return path if path.is_file() and path.stat().st_size <= _MOST_BYTES else None
        parent = name.rpartition("/")[0] or None
        there = (item for item in client.list_artifacts(run_id, parent) if item.path == name)
        if not any((item.file_size or 0) <= _MOST_BYTES for item in there):
            return None
        return Path(client.download_artifacts(run_id, name, folder))
    except Exception as error:
        _log.warning("artifact %s of run %s cannot be read: %s", name, run_id, error)
        return None


def read_scores(path: Path) -> Scores:
    """Reads a `scores.csv`: one line per sequence and object, scores in percent.

    A damaged file is named in the log and counts as absent: a report must not fail for one run.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = {}
            for line in csv.DictReader(file):
                values = {key: float(line[key]) for key in COLUMNS if line.get(key)}
                if not all(map(math.isfinite, values.values())):
                    raise ValueError(f"{line['sequence']}: a score that is not a number")
                if line.get("seen"):
                    values["seen"] = float(line["seen"] == "True")
                table[csv_cell(line["sequence"]), line["object"]] = values
            return table
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        _log.warning("scores in %s cannot be read: %s", path, error)
        return {}
