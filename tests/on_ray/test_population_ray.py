"""A population on Tune: the worst member goes on from the best; what was lost is made again, with or without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import result_of, same, train_alone
from tiny_study import make_dataset, tiny_config
from tracked import history, the_run

from ovos_ray.config import override
from ovos_ray.on_ray.study import run_sweep
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.read import load_study
from ovos_ray.study.expand import expand
from ovos_ray.study.here import run_plain
from ovos_ray.study.population import first_generation
from ovos_ray.study.run_study import sweep_key
from ovos_ray.study.space import Range, SearchSpace
from ovos_ray.study.summary import summarise
from ovos_ray.train.run_folder import RunFolder


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_bad_rate_goes_on_from_a_good_one_and_the_study_runs_again_only_what_is_missing(
    tmp_path: Path, store: str, client: Any
) -> None:
    make_dataset(tmp_path)
    # At a rate of 1e-2 the network loses every object in five steps; at 1e-8 it stays as it was made.
    space = SearchSpace(
        name="population",
        trainable="none",
        ranges={"optimizer.learning_rate": Range(1e-8, 1e-2, log=True)},
        num_samples=3,
        seeds=(0,),
        metric="val/jf",
        scheduler="pbt",
        resample=0.0,
    )
    selection = {"validation.root": str(tmp_path / "dataset"), "validation.split": "train", "validation.every": 10}
    selection |= {"validation.num_videos": 1, "tracking_uri": store}
    members, _ = expand(space, override(tiny_config(tmp_path, steps=20), selection))
    # One after the other, in one process a generation.
    result = run_sweep(space, members, tags={"made": "by a test"}, max_concurrent=1)
    assert not result.failed
    assert set(result.results) == {member.name for member in members}

    firsts = [RunFolder.of(segment.config) for segment in first_generation(members)]
    scores = [(folder.result() or {})["validation"]["jf"] for folder in firsts]
    assert scores[2] == min(scores) < max(scores)
    best = scores.index(max(scores))
    storage = members[0].config.storage
    lasts = [RunFolder.at(storage, f"member-{number:02d}-generation-01") for number in range(3)]
    parents = [last.config().segment.parent for last in lasts]  # type: ignore[union-attr]
    assert parents == [firsts[0].name, firsts[1].name, firsts[best].name]
    rate, inherited = (run.config().optimizer.learning_rate for run in (lasts[2], firsts[best]))
    assert rate / inherited in (pytest.approx(0.8, rel=1e-3), pytest.approx(1.2, rel=1e-3)) or rate == 1e-8
    final = (lasts[2].result() or {})["validation"]["jf"]
    assert final > scores[2]

    # Of the trials' curves each has its own steps; only the last segments are scored.
    runs = {folder.name: the_run(client, space.name, f"trial:{storage}:{folder.name}") for folder in (*firsts, *lasts)}
    parent = the_run(client, space.name, sweep_key(space, storage))
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials/finished"] == 3
    for generation, folders in enumerate((firsts, lasts)):
        for number, folder in enumerate(folders):
            run, tags = runs[folder.name], runs[folder.name].data.tags
            assert run.info.status == "FINISHED"
            assert tags["mlflow.parentRunId"] == parent.info.run_id
            assert tags["ovos.kind"] == ("trial" if generation else "segment")
            assert (tags["ovos.member"], tags["ovos.generation"]) == (str(number), str(generation))
            assert tags.get("ovos.parent_segment") == (parents[number] if generation else None)
            steps = [step for step, _ in history(client, run, "train/loss")]
            assert steps == [10 * generation + 5, 10 * generation + 10]
            assert ("final/jf" in run.data.metrics) == bool(generation)
    comparison = compare(load_study(space.name, store))
    assert comparison.count("finished") == 3
    assert [len(row.runs) for row in comparison.rows] == [1, 1, 1]
    curves = {run.name: run.curves["val/jf"] for row in comparison.rows for run in row.runs}
    assert [value for _, value in curves[lasts[2].name]] == [scores[best], final]
    assert len(summarise(space, members, result.results)) == 3

    # A member that kept its settings is the run that was never cut; the others are not.
    without = {"storage": str(tmp_path / "whole"), "tracking_uri": "", "validation.root": None, "evaluation.root": None}
    undisturbed = train_alone(override(members[0].config, without))
    weights = [result_of(last.config()) for last in lasts]
    assert same(weights[0], undisturbed)
    assert not any(same(other, undisturbed) for other in weights[1:])

    # Killed before the end: what is missing is made again, here without Ray, and nothing else.
    stamps = {run.name: (Path(storage) / run.name / "result.json").stat().st_mtime_ns for run in (*firsts, *lasts)}
    lasts[2].storage.remove("result.json")
    lasts[2].storage.remove_folder("checkpoints")
    assert run_plain(space, members).results.keys() == result.results.keys()
    changed = {
        name for name, stamp in stamps.items() if (Path(storage) / name / "result.json").stat().st_mtime_ns != stamp
    }
    assert changed == {lasts[2].name}
    assert same(result_of(lasts[2].config()), weights[2])
    found = client.get_experiment_by_name(space.name)
    assert len(client.search_runs([found.experiment_id])) == 7, "no second runs"
