"""A study without Ray: the same files and MLflow runs as on Tune, and the same weights after a kill."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import make_dataset, tiny_config

from ovos_ray.config import ExperimentConfig, PretrainConfig, to_dict
from ovos_ray.config import override as change
from ovos_ray.errors import ConfigError, ResourceError
from ovos_ray.run.here import fit_here
from ovos_ray.run.prepare import request_for
from ovos_ray.run.request import RunRequest
from ovos_ray.study.expand import expand
from ovos_ray.study.here import run_plain
from ovos_ray.study.space import SearchSpace
from ovos_ray.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    root = make_dataset(tmp_path_factory.mktemp("plain"))
    config = tiny_config(root, steps=4, checkpoint_every=1)
    return change(config, {"data.batch_size": 2, "train.log_every": 1, "train.cpus_per_worker": 1.0})


def _weights(config: ExperimentConfig) -> dict[str, torch.Tensor]:
    store = RunFolder.of(config).checkpoints()
    step = store.latest()
    assert step == config.train.steps
    weights: dict[str, torch.Tensor] = store.load(step)["network"]
    return weights


def _kill_when_checkpointed(config: ExperimentConfig) -> threading.Thread:
    """Kills the trial's process with SIGKILL once it has written a checkpoint."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            children = [child for child in multiprocessing.active_children() if child.name == config.name]
            if children and RunFolder.of(config).checkpoints().latest():
                os.kill(children[0].pid or 0, signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_study_without_ray_survives_a_kill_and_a_failure_and_runs_again_only_what_is_missing(
    base: ExperimentConfig, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in Path(base.data.shards[0]).iterdir():
        (broken / path.name).write_bytes(path.read_bytes() if path.suffix == ".json" else b"PAR1 nothing PAR1")
    # Not the other shards by another name: that would be the same trial twice.
    index = json.loads((broken / "index.json").read_text())
    (broken / "index.json").write_text(json.dumps({**index, "digest": index["digest"][::-1]}))
    space = SearchSpace(
        name="plain",
        trainable="none",
        axes={
            "method.backward data.shards": (
                ("2-step", base.data.shards),
                ("1-step", base.data.shards),
                ("T-step", (str(broken),)),
            )
        },
        seeds=(0,),
        overrides={"train.steps": 20},
    )
    trials, skipped = expand(space, base)
    assert not skipped
    events: list[dict[str, Any]] = []
    killer = _kill_when_checkpointed(trials[0].config)
    result = run_plain(space, trials, watcher=events.append, num_processes=2)
    killer.join()
    assert [failure.name for failure in result.failed] == [trials[2].name]
    assert set(result.results) == {trial.name for trial in trials[:2]}

    # What was killed went on from a checkpoint, and computed what an undisturbed run computes.
    continued = [event for event in events if "exit code -9" in event.get("event", "")]
    assert [event["run"] for event in continued] == [trials[0].config.name]
    assert any(
        "resuming at step" in event.get("event", "") for event in events if event["run"] == trials[0].config.name
    )
    undisturbed = change(trials[0].config, {"name": "undisturbed", "tracking_uri": ""})
    fit_here(RunRequest(undisturbed, "plain", "undisturbed"))
    killed, whole, other = (_weights(config) for config in (trials[0].config, undisturbed, trials[1].config))
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    assert not all(torch.equal(other[name], whole[name]) for name in whole)

    client = MlflowClient(base.tracking_uri)
    experiment = client.get_experiment_by_name("plain")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["ovos.kind"] == "sweep"]
    children = {run.data.tags["ovos.trial"]: run for run in runs if run.data.tags["ovos.kind"] == "trial"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert [children[trial.name].info.status for trial in trials] == ["FINISHED", "FINISHED", "FAILED"]
    assert "DataError" in children[trials[2].name].data.tags["ovos.error"]
    history = client.get_metric_history(children[trials[0].name].info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 21))

    # Again, with the broken shards mended: only that trial runs.
    for path in Path(base.data.shards[0]).iterdir():
        if path.suffix != ".json":
            (broken / path.name).write_bytes(path.read_bytes())
    again: list[dict[str, Any]] = []
    assert not run_plain(space, trials, watcher=again.append).failed
    assert {event["run"] for event in again} == {trials[2].config.name}
    assert len(client.search_runs([experiment.experiment_id])) == 4, "no second runs"


def test_a_finished_run_is_left_alone(base: ExperimentConfig) -> None:
    config = change(base, {"name": "alone", "train.steps": 2, "tracking_uri": "", "evaluation.root": None})
    events: list[dict[str, Any]] = []
    request = RunRequest(config, "plain", "alone", watcher=events.append)
    fit_here(request)
    assert len(events) > 2
    number = len(events)
    fit_here(request)
    assert len(events) == number
    fit_here(dataclasses.replace(request, config=change(config, {"name": "another"})))
    assert len(events) > number


def test_a_second_one_who_trains_the_same_run_is_refused_and_the_first_goes_on(
    base: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.run import lock

    monkeypatch.setattr(lock, "_PATIENCE_HERE_S", 0.0)
    config = change(base, {"name": "twice", "train.steps": 2, "tracking_uri": "", "evaluation.root": None})
    events: list[str] = []
    errors: list[str] = []

    def second() -> None:
        same = RunRequest(config, "plain", "twice", watcher=lambda record: events.append(record.get("event", "")))
        other = change(config, {"train.steps": 3})
        for attempt in (lambda: fit_here(same), lambda: request_for(other, "plain", tags={}, replace=True)):
            with pytest.raises(ResourceError) as caught:
                attempt()
            errors.append(str(caught.value))

    def first(record: dict[str, Any]) -> None:
        if "train/loss" in record and not errors:  # in the middle of its training
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    fit_here(RunRequest(config, "plain", "twice", watcher=first))
    assert [f"run twice is being made by process {os.getpid()} on " in error for error in errors] == [True, True]
    assert any(event.startswith(f"waiting: process {os.getpid()} on ") for event in events)
    assert (RunFolder.of(config).result() or {})["steps"] == 2


@pytest.mark.slow
def test_a_second_driver_of_a_study_is_refused_and_leaves_its_runs_alone(
    base: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.run import lock

    monkeypatch.setattr(lock, "_PATIENCE_HERE_S", 0.0)
    changes = {"train.steps": 2, "tracking_uri": "", "evaluation.root": None}
    space = SearchSpace(name="two-drivers", trainable="none", seeds=(0, 1), overrides=changes)
    longer = dataclasses.replace(space, overrides={**changes, "train.steps": 3})
    trials, _ = expand(space, base)
    finished = RunFolder.of(trials[0].config)
    errors: list[str] = []

    def second() -> None:
        for one, replace in ((space, False), (longer, True)):
            with pytest.raises(ResourceError) as caught:
                run_plain(one, expand(one, base)[0], replace=replace)
            errors.append(str(caught.value))

    def first(record: dict[str, Any]) -> None:
        if "train/loss" in record and record["run"] == trials[1].config.name and not errors:
            assert finished.result() is not None
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    assert not run_plain(space, trials, watcher=first).failed
    assert len(errors) == 2
    for error in errors:
        assert error.startswith(f"study two-drivers is being made by process {os.getpid()} on ")
    assert (finished.result() or {})["steps"] == 2, "nothing of a study under way is set aside"
    assert not RunFolder.of(trials[1].config).storage.exists("failure.json")


def test_a_pretraining_that_is_needed_and_not_finished_is_named(base: ExperimentConfig) -> None:
    needed = {"pretrain.recipe": "trainables.pretrain", "pretrain.digest": "0123", "pretrain.storage": "nowhere"}
    config = change(
        change(base, {"pretrain": PretrainConfig(recipe="trainables.pretrain")}), {"name": "later", **needed}
    )
    with pytest.raises(ConfigError, match="pretraining 0123 is needed and not finished"):
        fit_here(RunRequest(config, "plain", "later"))


@pytest.mark.slow
def test_a_study_without_ray_does_not_import_it_nor_what_lies_in_the_current_folder(
    base: ExperimentConfig, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("torch", "numpy", "multiprocessing") if sys.version_info >= (3, 11) else ():  # looked for first
        (here / f"{name}.py").write_text(f"open('{name}.ran', 'w')\n")
    (tmp_path / "tiny.py").write_text(
        "import pathlib\nfrom ovos_ray.config import ExperimentConfig, from_dict\n"
        "from ovos_ray.study.space import SearchSpace\n"
        f"def one() -> ExperimentConfig:\n    return from_dict(ExperimentConfig, {to_dict(base)!r})\n"
        "def study() -> SearchSpace:\n    return SearchSpace(name='light', trainable='tiny.one', seeds=(0,))\n"
    )
    code = (
        "import sys\nsys.path.remove('')\nfrom ovos_ray.cli.sweep import sweep\n"
        "sweep('tiny.study', ['train.steps=1', 'evaluation.root=none', 'tracking_uri='], no_ray=True)\n"
        "print('ray' in sys.modules, [name for name in sys.modules if name.startswith('ovos_ray.on_ray')])"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.splitlines()[-1] == "False []"
    assert not list(here.glob("*.ran"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_run_that_asks_for_a_gpu_is_refused_where_none_is(base: ExperimentConfig) -> None:
    config = change(base, {"name": "gpu", "train.gpus_per_worker": 0.5, "tracking_uri": "", "evaluation.root": None})
    with pytest.raises(ResourceError, match="no GPU that torch can use"):
        fit_here(RunRequest(config, "plain", "gpu"))


def test_a_trial_has_the_environment_of_when_its_study_started(
    base: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the process that trials are copied from is older."""
    changes = {"network.name": "stcn", "network.init": "imagenet", "tracking_uri": "", "evaluation.root": None}
    space = SearchSpace(name="environment", trainable="none", seeds=(0,), overrides=changes)
    trials, _ = expand(space, base)
    for folder in (str(tmp_path / "one"), str(tmp_path / "two")):
        monkeypatch.setenv("OVOS_IMAGENET", folder)
        (failure,) = run_plain(space, trials).failed
        assert folder in failure.reason + failure.remedy
