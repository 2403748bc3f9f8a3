"""Scores of finished runs, made later: on datasets that were not at hand, or not thought of, when the runs ended."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ovos_ray.config import EvaluationConfig, ExperimentConfig, override
from ovos_ray.errors import ConfigError, first_line
from ovos_ray.evaluate.evaluation import Benchmark, benchmarks, check_benchmarks, evaluate_network
from ovos_ray.evaluate.score.server import SERVER_TAG, ServerScores
from ovos_ray.run.request import resolve, spool_folder
from ovos_ray.run.result import NOTES_TAG, notes_text
from ovos_ray.storage import Storage, location_of
from ovos_ray.track.sender import run_of
from ovos_ray.track.servers import require_chosen
from ovos_ray.track.sink import Sink
from ovos_ray.train.load_network import load_network
from ovos_ray.train.run_folder import RunFolder

__all__ = ["enter_scores", "finished_runs", "score_run"]

_OF_THE_MAIN_ONE = ("evaluation.split", "evaluation.protocol", "evaluation.layout")
"""Settings of `evaluation.root` and `evaluation.shards`; what `evaluation.also` names has its own."""


def finished_runs(folder: str | Path) -> list[RunFolder]:
    """Returns the run in a folder or at a URI; if a study lies there, its finished runs in the order of their names.

    Of a population's members only what ends with the last step is a run of the study.

    Raises:
        ConfigError: There is none.
    """
    location = location_of(folder)
    place = Storage(location if "://" in location else str(Path(folder).absolute()))
    alone = place.exists("config.json")
    runs = [RunFolder(place)] if alone else [RunFolder(place / name) for name in place.folders()]
    finished = [run for run in runs if run.result() is not None and (alone or _ends(run.config()))]
    if not finished:
        raise ConfigError(f"{folder}: holds no finished run", "give the folder of a run or of a study")
    return finished


def _ends(config: ExperimentConfig) -> bool:
    return config.stop_step == config.train.steps


def score_run(folder: RunFolder, overrides: Sequence[str], say: Callable[[str], None]) -> dict[str, float]:
    """Scores the weights of a finished run, into its folder and its MLflow run; what was scored before stays.

    Args:
        folder: The run's.
        overrides: What to score on, `evaluation.root=FOLDER`, `evaluation.shards=SHARDS` or
            `evaluation.also=NAME=FOLDER`, and how.
        say: Told what is being done.

    Returns:
        The new scores by name, in percent; empty where all was scored before.

    Raises:
        ConfigError: Another setting than those of `evaluation` is given, nothing to score on, or other rules or another
            split than those that a score of the same name has.
        OvosError: The weights, or a dataset, cannot be used.
    """
    if other := [text for text in overrides if not text.startswith("evaluation.")]:
        raise ConfigError(f"{other[0]}: a finished run stays what it is", "give settings of evaluation alone")
    stored = folder.config()
    config = resolve(override(dataclasses.replace(stored, evaluation=EvaluationConfig()), list(overrides)))
    check_benchmarks(config.evaluation)
    result = dict(folder.result() or {})
    scores: dict[str, float] = dict(result.get("scores", {}))
    wanted = list(benchmarks(config.evaluation))
    if not wanted:
        raise ConfigError("nothing to score on is given", "add evaluation.root=FOLDER or evaluation.shards=SHARDS")
    idle = [key for key in _OF_THE_MAIN_ONE if any(text.startswith(f"{key}=") for text in overrides)]
    if idle and config.evaluation.source is None:
        raise ConfigError(
            f"{idle[0]} is of evaluation.root or evaluation.shards, and neither is given",
            "what evaluation.also names is scored by the rules of its layout; NAME=FOLDER:SPLIT says its split",
        )
    later: dict[str, dict[str, str]] = dict(result.get("scored_on", {}))
    scored_on = {one.name: _said(one) for one in benchmarks(stored.evaluation)} | later
    for benchmark in wanted:
        if _is_scored(scores, "", benchmark):
            _check_same(folder, benchmark, scored_on.get(benchmark.name, {}), say)
    new: dict[str, float] = {}
    tables: dict[str, str] = {}
    notes: dict[str, list[str]] = dict(result.get("score_notes", {}))
    for weights, begin in (("network.safetensors", ""), ("network_ema.safetensors", "ema/")):
        todo = [benchmark for benchmark in wanted if not _is_scored(scores, begin, benchmark)]
        if not todo or not folder.storage.exists(weights):
            continue
        network = load_network(folder.storage.location(weights))
        network = network.cuda() if torch.cuda.is_available() else network
        for benchmark in todo:
            say(f"{folder.name}: scoring {begin}{benchmark.split} of {benchmark.root}")
            suffix = f"{'-ema' if begin else ''}{benchmark.suffix}"
            table = evaluate_network(
                network,
                root=benchmark.root,
                layout=benchmark.layout,
                split=benchmark.split,
                protocol=benchmark.protocol,
                shortest_side=config.evaluation.shortest_side,
                out=folder.storage / f"predictions{suffix}",
            )
            new |= {f"{begin}{benchmark.metric(key)}": value for key, value in table.headline().items()}
            tables[f"scores{suffix}.csv"] = table.to_csv()
            later[benchmark.name] = _said(benchmark)
            notes |= {benchmark.root: list(table.notes)} if table.notes else {}
            for note in table.notes:
                say(f"{folder.name}: {note}")
    if new:
        for name, content in tables.items():
            folder.storage.write(content.encode(), name)
        missing = {
            root: why for root, why in result.get("not_scored", {}).items() if root not in {one.root for one in wanted}
        }
        changed = {**result, "scores": scores | new, "not_scored": missing, "score_notes": notes, "scored_on": later}
        folder.storage.write(json.dumps(changed, indent=2).encode(), "result.json")
        _track(folder, stored, result, new, tables, say, {NOTES_TAG: notes_text(notes)} if notes else None)
    return new


def enter_scores(folder: RunFolder, answer: ServerScores, say: Callable[[str], None]) -> dict[str, float]:
    """Enters what a benchmark's server has answered, into the run's `result.json` and its MLflow run.

    `say` is told where something else stood before.

    Returns:
        The scores by name, in percent.

    Raises:
        ConfigError: The run was not to be scored on a dataset of the answer's name.
    """
    stored, result = folder.config(), dict(folder.result() or {})
    known = {one.name: one.root for one in stored.evaluation.also}
    if answer.name != answer.benchmark and answer.name not in known:
        raise ConfigError(
            f"dataset {answer.name}: {folder.name} has no such entry in evaluation.also",
            f"name one of {', '.join(known)}" if known else "leave that line out",
        )
    scores = {f"{answer.name}/{key}": value for key, value in answer.scores.items()}
    before: dict[str, float] = result.get("scores", {})
    for name in sorted(name for name in scores if before.get(name, scores[name]) != scores[name]):
        say(f"{folder.name}: {name} was {before[name]:.2f}")
    missing = {root: why for root, why in result.get("not_scored", {}).items() if root != known.get(answer.name)}
    servers = {**result.get("servers", {}), answer.name: answer.dataset}
    changed = {**result, "scores": {**before, **scores}, "not_scored": missing, "servers": servers}
    folder.storage.write(json.dumps(changed, indent=2).encode(), "result.json")
    tags = {SERVER_TAG + answer.name: answer.dataset, "ovos.not_scored": "; ".join(missing.values())[:400]}
    _track(folder, stored, result, scores, {}, say, tags)
    return scores


def _is_scored(scores: dict[str, float], begin: str, benchmark: Benchmark) -> bool:
    names = [name.removeprefix(begin) for name in scores if name.startswith(begin)]
    start = benchmark.metric("")
    return any(name.startswith(start) if start else "/" not in name for name in names)


def _said(benchmark: Benchmark) -> dict[str, str]:
    return {"root": benchmark.root, "split": benchmark.split, "protocol": benchmark.protocol or "auto"}


def _check_same(folder: RunFolder, asked: Benchmark, before: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Refuses what would be taken for scored since there are scores of its name, by other rules or of another split."""
    wanted = _said(asked)
    others = [
        f"{key} {before[key]}, not {wanted[key]}"
        for key in ("split", "protocol")
        if before.get(key, wanted[key]) != wanted[key] and "auto" not in (before[key], wanted[key])
    ]
    if others:
        raise ConfigError(
            f"{folder.name}: the scores{f' called {asked.name}' if asked.name else ''} that it has are of "
            f"{before['root']}, {'; '.join(others)}",
            "they stay; evaluation.also=NAME=FOLDER:SPLIT scores another split under a name of its own, and "
            "`ovos-ray evaluate` masks by other rules",
        )
    if before.get("root", asked.root) != asked.root:
        say(f"{folder.name}: was scored on {before['root']}; evaluation.also=NAME={asked.root} scores another dataset")


def _track(
    folder: RunFolder,
    config: ExperimentConfig,
    result: dict[str, Any],
    scores: dict[str, float],
    tables: dict[str, str],
    say: Callable[[str], None],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Logs new scores into the run's own MLflow run; where that is not known or not reached, says so."""
    try:
        require_chosen(config.tracking_uri, f"{folder.name}/config.json")
    except ConfigError as error:
        say(f"{folder.name}: not told to MLflow: {error.message}; {error.remedy}")
        return
    try:
        known = run_of(config.tracking_uri, result.get("tracking_run")) if config.tracking_uri else None
    except Exception as error:  # whatever the server answers: the scores are in the run's folder
        say(f"{folder.name}: not told to MLflow ({type(error).__name__}: {first_line(error)})")
        return
    if known is None:
        return
    experiment, run_key = known
    local = folder.storage.local  # where this run lies, whatever its configuration says
    spool = Path(folder.storage.path("tracking")) if local else spool_folder(config)
    sink = Sink.open(config.tracking_uri, experiment, run_key, name=config.name, spool=spool)
    sink.log_metrics({f"final/{name}": value for name, value in scores.items()}, 0)
    for name, content in tables.items():
        sink.log_artifact(content.encode(), name)
    if tags:
        sink.set_tags(tags)
    if "scores.csv" in tables:
        sink.set_tags({"ovos.predictions": (folder.storage / "predictions").folder})
    if not sink.finish():
        say(f"{folder.name}: MLflow does not answer; `ovos-ray sync {config.storage}` sends the scores later")
