"""Published tables and splits (`tables.json`), and which of the splits a score of ours was made on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ovos_ray.evaluate.score.server import SERVER_TAG
from ovos_ray.io import read_json
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.runs import Scores

__all__ = ["benchmark_metrics", "evaluated_on", "published"]


@cache
def published() -> dict[str, Any]:
    """Returns the document: `tables`, `sequences` of the splits, and `training`, how each network was trained."""
    document: dict[str, Any] = read_json(Path(__file__).with_name("tables.json"))
    return document


def _official(scores: Scores, protocol: str) -> str:
    """Returns the benchmark split that consists of exactly these sequences, or an empty string."""
    sequences = frozenset(sequence for sequence, _ in scores)
    for name, split in published()["sequences"].items():
        if split["protocol"] == protocol and frozenset(split["names"].split()) == sequences:
            return str(name)
    return ""


def _protocol(scores: Scores) -> str:
    """Returns which of DAVIS' protocols was followed: 2016 merges all objects into one, 2017 has several."""
    return "davis2016" if {index for _, index in scores} <= {"1"} else "davis2017"


def evaluated_on(row: Row) -> tuple[str, str]:
    """Returns (official dataset/split or empty, words for the reader) of a configuration's final scores."""
    places = set()
    for run in row.finished:
        official = _official(run.scores, run.param("evaluation.protocol"))
        split = run.param("evaluation.split", "val")
        name = Path(run.source("evaluation") or "unknown data").name
        number = len({sequence for sequence, _ in run.scores})
        words = official or f"{name} {split}" + (f" ({number} sequences)" if number else "")
        places.add((run.tags.get("ovos.evaluated_on", official), run.tags.get("ovos.evaluated_on", words)))
    if len(places) == 1:
        return places.pop()
    return "", "different data" if places else "nothing yet"


def benchmark_metrics(row: Row) -> dict[str, str]:
    """Returns, by official dataset/split, how the metrics of a configuration's scores there begin.

    The sequences that were scored decide, not what `evaluation.also` calls the dataset; of what a server has answered,
    what was entered with it (`ovos-ray score --server`).
    """
    found = {}
    for name in {name for run in row.finished for name in run.also}:
        said = {run.tags.get(SERVER_TAG + name, "") for run in row.finished} - {""}
        if len(said) == 1:
            found[said.pop()] = f"final/{name}"
            continue
        places = {_official(run.also.get(name, {}), _protocol(run.also.get(name, {}))) for run in row.finished}
        if len(places) == 1:
            found[places.pop()] = f"final/{name}"
    found[evaluated_on(row)[0]] = "final"
    found.pop("", None)
    return found
