"""A study on Tune: all trials run, failures stay theirs, and running it again only does what is missing."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from processes import wait_for
from tiny_study import make_dataset

from ovos_ray.config import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    TrainConfig,
    override,
)
from ovos_ray.errors import ConfigError
from ovos_ray.on_ray.study import run_sweep
from ovos_ray.report.build import build_report
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace
from ovos_ray.study.summary import summarise
from ovos_ray.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    root = tmp_path_factory.mktemp("sweep")
    make_dataset(root)
    return ExperimentConfig(
        network=NetworkConfig(name="stcn-tiny"),
        data=DataConfig(
            shards=(str(root / "shards"),), clip_length=4, max_skip=((0.0, 1),), batch_size=2, crop_size=48
        ),
        method=MethodConfig(loss=LossConfig(cross_entropy="plain")),
        train=TrainConfig(steps=3, cpus_per_worker=0.5, num_threads=1, checkpoint_every=2, log_every=1),
        evaluation=EvaluationConfig(root=str(root / "dataset"), split="val"),
        storage=str(root / "runs"),
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_study_runs_is_logged_counts_a_failure_and_runs_again_only_what_is_missing(
    base: ExperimentConfig, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in Path(base.data.shards[0]).iterdir():
        (broken / path.name).write_bytes(path.read_bytes() if path.suffix == ".json" else b"PAR1 nothing PAR1")
    # Shards with the same index are the same data: what else differs makes them two trials.
    good = tuple((strategy, 2, base.data.shards) for strategy in ("T-step", "2-step", "1-step"))
    axes = {"method.backward data.batch_size data.shards": (*good, ("2-step", 1, (str(broken),)))}
    space = SearchSpace(name="study", trainable="none", axes=axes, seeds=(0,))
    trials, skipped = expand(space, base)
    assert not skipped
    *healthy, bad = trials
    result = run_sweep(space, trials, max_concurrent=2)
    (failure,) = result.failed
    assert failure.name == bad.name
    assert failure.reason.startswith("DataError: ")
    assert failure.remedy
    assert set(result.results) == {trial.name for trial in healthy}
    for trial in healthy:
        folder = Path(trial.config.storage) / trial.config.name
        assert {"config.json", "network.safetensors", "scores.csv", "result.json"} <= {p.name for p in folder.iterdir()}
        assert len(list((folder / "predictions").rglob("*.png"))) == 6

    client = MlflowClient(base.tracking_uri)
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["ovos.kind"] == "sweep"]
    children = {run.info.run_name: run for run in runs if run.data.tags["ovos.kind"] == "trial"}
    assert len(children) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert parent.info.status == "FAILED"
    failed = children.pop(bad.config.name)
    assert failed.info.status == "FAILED"
    assert "DataError" in failed.data.tags["ovos.error"]
    for run in children.values():
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in history] == [1, 2, 3]
        assert 0 <= run.data.metrics["final/jf"] <= 100

    # One trial is lost; running the study again makes that one, and tries the failed one again.
    lost = RunFolder.of(healthy[1].config).storage
    stamps = {t.name: (Path(t.config.storage) / t.config.name / "result.json").stat().st_mtime_ns for t in healthy}
    before = result.results[healthy[1].name]["scores"]
    lost.remove("result.json")
    for path in Path(base.data.shards[0]).iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    again = run_sweep(space, trials, max_concurrent=1)  # in one process, one after the other
    assert not again.failed
    assert again.results[healthy[1].name]["scores"] == before
    for trial in (healthy[0], healthy[2]):
        assert (Path(trial.config.storage) / trial.config.name / "result.json").stat().st_mtime_ns == stamps[trial.name]
    ended = client.search_runs([experiment.experiment_id])
    assert len(ended) == 5, "no second runs"
    assert {run.info.status for run in ended} == {"FINISHED"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_stopped_early_says_so_frees_its_workers_and_is_not_made_again(
    base: ExperimentConfig, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    # At a rate of 1e-2 the network loses every object in five steps; at 0 it stays as it was made.
    space = SearchSpace(
        name="stopping",
        trainable="none",
        axes={"optimizer.learning_rate method.backward": ((0.0, "2-step"), (1e-2, "2-step"), (1e-2, "T-step"))},
        seeds=(0,),
        metric="val/jf",
        scheduler="asha",
    )
    selection = {"validation.root": base.evaluation.root, "validation.split": "train", "validation.every": 5}
    selection |= {"validation.num_videos": 1}
    trials, _ = expand(space, override(base, {**selection, "train.steps": 40}))
    kept, stopped, also_stopped = (trial.name for trial in trials)
    # The cluster is the whole session's: what other tests left is none of this study's.
    before = held()
    result = run_sweep(space, trials, max_concurrent=1)
    assert not result.failed
    assert result.results[kept]["steps"] == 40
    assert result.results[kept]["validation"]["jf"] > 1
    assert "stopped" not in result.results[kept]
    last = result.results[stopped]
    for one in (last, result.results[also_stopped]):
        assert (one["stopped"], one["scores"]) == (True, {})
        assert 5 <= one["steps"] < 40
        assert one["validation"]["jf"] < result.results[kept]["validation"]["jf"]

    with contextlib.suppress(AssertionError):
        wait_for(lambda: held().keys() <= before.keys(), 60)
    assert not {key: what for key, what in held().items() if key not in before}
    client = MlflowClient(base.tracking_uri)
    experiment = client.get_experiment_by_name("stopping")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 4
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    tags = {name: run.data.tags.get("ovos.stopped_early") for name, run in runs.items()}
    assert tags[trials[0].config.name] is None
    assert tags[trials[1].config.name] == str(last["steps"])

    page = build_report("stopping", base.tracking_uri, tmp_path / "report").html.read_text()
    drawing = page.partition("<h3>All trials</h3>")[2].partition("</svg>")[0]
    dashes = [("stroke-dasharray" in line) for line in re.findall(r"<path [^>]*stroke-width: 1.6[^>]*>", drawing)]
    assert sorted(dashes) == [False, True, True]
    assert page.count("<td>1 stopped early") == 2
    last_steps = re.findall(
        r'<span class="state stopped">stopped</span></td><td class="n">0</td>\s*'
        r'<td class="n">–</td><td class="n">(\d+)</td>',
        page,
    )
    assert sorted(map(int, last_steps)) == sorted(result.results[name]["steps"] for name in (stopped, also_stopped))
    assert "3 trials: 1 finished, 2 stopped" in page

    again = run_sweep(space, trials)
    assert again.results == result.results
    rows = summarise(space, trials, again.results)
    assert [(row.num_finished, row.num_stopped) for row in rows] == [(1, 0), (0, 1), (0, 1)]


def held() -> dict[str, str]:
    """The living actors, without the two that Ray Data starts once per cluster, and the placement groups, by id."""
    import ray
    from ray._private.state import actors

    once = ("_StatsActor", "_AutoscalingCoordinatorActor")
    living = {key: actor for key, actor in actors().items() if actor["State"] != "DEAD"}
    names = {key: actor["ActorClassName"] for key, actor in living.items()}
    groups = {key: group for key, group in ray.util.placement_group_table().items() if group["state"] != "REMOVED"}
    return {
        **{key: name for key, name in names.items() if name.rpartition(".")[2] not in once},
        **{key: f"placement group {group['state']}" for key, group in groups.items()},
    }


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        ({"scheduler": "asha", "metric": "final/jf"}, {}, "'final/jf' is only known at the end"),
        ({"scheduler": "asha", "metric": "val/jf"}, {}, "validation.root = None"),
        (
            {"scheduler": "median", "metric": "val/jf"},
            {"validation.root": "ROOT", "validation.split": "train"},
            "validation.every = 0 of 3 steps",
        ),
        (
            {"scheduler": "asha", "metric": "val/jf"},
            {"validation.root": "ROOT", "validation.split": "val", "validation.every": 1},
            "masks that are reported too",
        ),
        ({"scheduler": "pbt", "metric": "final/jf"}, {}, "'final/jf' is only known at the end"),
        (
            {"scheduler": "pbt", "metric": "val/jf"},
            {"validation.root": "ROOT", "validation.split": "train", "validation.every": 1},
            "two or more members with one seed",
        ),
    ],
)
def test_a_scheduler_that_cannot_compare_is_refused_before_anything_starts(
    base: ExperimentConfig, changes: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    settings = {key: base.evaluation.root if value == "ROOT" else value for key, value in settings.items()}
    space = SearchSpace(name="refused", trainable="none", seeds=(0,), **changes)
    trials, _ = expand(space, override(base, settings))
    with pytest.raises(ConfigError, match=words):
        run_sweep(space, trials)
    assert not RunFolder.of(trials[0].config).storage.exists("config.json")


def test_results_are_plain_json(base: ExperimentConfig) -> None:
    folder = RunFolder.of(override(base, {"name": "plain"}))
    folder.finish({"scores": {"jf": 1.5}})
    assert json.loads(folder.storage.read("result.json")) == {"scores": {"jf": 1.5}}
