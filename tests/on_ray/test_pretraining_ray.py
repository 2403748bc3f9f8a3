"""One pretraining for two drivers: one trains it and is killed, the other waits, takes over, and goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import result_of, same, train_alone, training_workers

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.digest import resolve_paths
from ovos_ray.config.recipes import make
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace
from ovos_ray.train.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = """
from ovos_ray.config import DataConfig, ExperimentConfig, LossConfig, MethodConfig, NetworkConfig, OptimizerConfig
from ovos_ray.config import PretrainConfig, TrainConfig, override

def stage() -> ExperimentConfig:
    '''Stage 0.'''
    return ExperimentConfig(
        network=NetworkConfig(name="xmem-tiny"),
        data=DataConfig(
            shards=("shards/static",), source="static", clip_length=3, max_objects=1, batch_size=2, crop_size=32
        ),
        method=MethodConfig(name="supervised", loss=LossConfig(cross_entropy="plain")),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(steps=60, checkpoint_every=10, log_every=10),
    )

def main_stage() -> ExperimentConfig:
    '''The run that starts from it.'''
    one_shot = {"data.source": "video", "data.shards": ("shards/videos",), "method.name": "one_shot",
                "train.steps": 2, "train.cpus_per_worker": 0.5, "train.num_threads": 1, "name": "alone",
                "tracking_uri": "sqlite:///mlflow.db"}
    return override(stage(), {**one_shot, "pretrain": PretrainConfig(recipe="my_recipes.stage")})
"""


def kill_when_somebody_waits(driver: subprocess.Popen[bytes], worker: psutil.Process, board: Any) -> threading.Thread:
    import ray

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any("waiting: process" in r.get("event", "") for r in ray.get(board.since.remote(0))):
                break
            time.sleep(0.1)
        os.kill(driver.pid, signal.SIGKILL)
        worker.kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_pretraining_outlives_the_driver_that_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from mlflow import MlflowClient

    from ovos_ray.on_ray.session import _BoardWatcher
    from ovos_ray.on_ray.study import run_sweep
    from ovos_ray.run.progress import ProgressBoard

    (tmp_path / "my_recipes.py").write_text(RECIPES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    small = synthetic.SyntheticConfig(height=32, width=48, num_frames=5)
    synthetic.generate(tmp_path / "dataset", seed=3, num_videos={"train": 3, "val": 2}, config=small)
    source = open_dataset(tmp_path / "dataset")
    pack(source, tmp_path / "shards/videos", labels="first", split="train")
    pack(source, tmp_path / "shards/static", labels="all", split="val")

    base = make("my_recipes.main_stage", ExperimentConfig)
    trials, _ = expand(SearchSpace(name="study", trainable="my_recipes.main_stage", seeds=(0,)), base)
    config = override(resolve_paths(trials[0].config, tmp_path), {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})
    assert config.pretrain is not None
    stage = tmp_path / "runs" / "pretraining" / config.pretrain.digest

    command = [sys.executable, "-m", "ovos_ray", "train", "my_recipes.main_stage"]
    with (tmp_path / "driver.log").open("wb") as log:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + 120
    while not (stage / "checkpoints/step-00000020/complete.json").exists():
        assert driver.poll() is None, (tmp_path / "driver.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # The driver still holds the pretraining, and gets no further, while others come and ask for it.
    (worker,) = training_workers(driver.pid)
    worker.suspend()

    board = ray.remote(ProgressBoard).options(num_cpus=0).remote()
    killer = kill_when_somebody_waits(driver, worker, board)
    trial = type(trials[0])(trials[0].name, trials[0].values, config)
    result = run_sweep(SearchSpace(name="study", trainable=""), [trial], watcher=_BoardWatcher(board))
    killer.join(5)
    assert driver.wait(5) == -signal.SIGKILL
    events = [r["event"] for r in ray.get(board.since.remote(0)) if "event" in r and r["run"] == stage.name]
    assert any(f"process {driver.pid}" in event for event in events)
    resumed = [int(e.split("step ")[1].split(":")[0]) for e in events if e.startswith("resuming at step")]
    assert len(resumed) == 1
    assert 20 <= resumed[0] < 60, "what the killed driver had done is not done again"

    stage_config = RunFolder.at(str(stage.parent), stage.name).config()
    weights = result_of(stage_config)
    undisturbed = override(stage_config, {"storage": str(tmp_path / "alone"), "tracking_uri": ""})
    assert same(weights, train_alone(undisturbed))
    assert not same(weights, train_alone(override(undisturbed, {"seed": 1, "name": "other"})))

    (values,) = result.results.values()
    assert values["labels"] == {
        "training": 3, "training_frames": 15, "validation": 0, "validation_frames": 0, "pretraining": 10
    }  # fmt: skip
    client = MlflowClient(config.tracking_uri)
    runs = {
        name: client.search_runs([experiment.experiment_id])
        for name in ("pretraining", "study")
        if (experiment := client.get_experiment_by_name(name)) is not None
    }
    (pretraining,) = runs["pretraining"]
    assert pretraining.data.tags["ovos.kind"] == "pretraining"
    assert pretraining.info.status == "FINISHED"
    history = [point.step for point in client.get_metric_history(pretraining.info.run_id, "train/loss")]
    assert sorted(history) == list(range(10, 61, 10)), "nothing is missing, nothing is double"
    (child,) = [run for run in runs["study"] if run.data.tags["ovos.kind"] == "trial"]
    assert child.data.tags["ovos.pretraining_run"] == pretraining.info.run_id
    assert child.data.tags["ovos.pretraining_digest"] == stage.name
    assert child.data.tags["ovos.labels.pretraining"] == "10"
