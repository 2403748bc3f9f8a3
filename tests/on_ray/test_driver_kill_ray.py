"""kill -9 of the process that runs a sweep: the same command finishes the study as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import wait_for
from runs import result_of, same
from tiny_study import make_dataset, tiny_config, undisturbed

from ovos_ray.config import ExperimentConfig
from ovos_ray.config import override as change
from ovos_ray.train.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
LONG, SHORT = 60, 5
STUDY = f"""
from pathlib import Path
from ovos_ray.config import ExperimentConfig
from ovos_ray.study.space import SearchSpace
from tiny_study import tiny_config

def tiny() -> ExperimentConfig:
    return tiny_config(Path(__file__).parent, steps={LONG})

def study() -> SearchSpace:
    return SearchSpace(
        name="study", trainable="killed_study.tiny", axes={{"train.steps": ({SHORT}, {LONG})}}, seeds=(0,)
    )
"""


def start(root: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "support")])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_ADDRESS")}
    environment |= {"PYTHONPATH": paths, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "PYTHONUNBUFFERED": "1"}
    log = open(root / "log.txt", "a")  # noqa: SIM115 - the process writes on
    command = [sys.executable, "-m", "ovos_ray", "sweep", "killed_study.study", "--max-concurrent", "1"]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_whose_driver_was_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    make_dataset(tmp_path)
    (tmp_path / "killed_study.py").write_text(STUDY)
    base = change(tiny_config(tmp_path, steps=LONG), {"storage": str(tmp_path / "runs" / "study")})
    short: ExperimentConfig = change(base, {"name": f"steps-{SHORT}-seed-0", "train.steps": SHORT})
    long: ExperimentConfig = change(base, {"name": f"steps-{LONG}-seed-0"})
    folder = RunFolder.of(long)

    driver = start(tmp_path)
    try:
        # One trial is finished, the next under way.
        wait_for(lambda: driver.poll() is not None or (folder.checkpoints().latest() or 0) > 0, 600)
        assert driver.poll() is None, (tmp_path / "log.txt").read_text()
        assert RunFolder.of(short).result() is not None
        # Ray's agents look for their node every now and then only, and hold nothing of a run.
        family = [p for p in psutil.Process(driver.pid).children(recursive=True) if "Agent" not in p.name()]
    finally:
        driver.kill()
        driver.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, "processes of the dead driver are left over"
    survived = folder.checkpoints().latest()
    assert survived is not None
    assert 0 < survived < LONG, "it was over before it was killed"
    stamp = Path(RunFolder.of(short).storage.path("result.json")).stat().st_mtime_ns

    again = start(tmp_path)
    assert again.wait(600) == 0, (tmp_path / "log.txt").read_text()

    log = (tmp_path / "log.txt").read_text()
    assert f"resuming at step {survived}" in log
    assert log.count("finished  jf") == 2
    assert Path(RunFolder.of(short).storage.path("result.json")).stat().st_mtime_ns == stamp, "it ran a second time"
    assert same(result_of(long), undisturbed(long, tmp_path / "alone")), "the order of samples was disturbed"
    assert not same(result_of(short), undisturbed(change(short, {"seed": 1}), tmp_path / "other"))

    client = MlflowClient(base.tracking_uri)
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["ovos.kind"] for run in runs) == ["sweep", "trial", "trial"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if run.data.tags["ovos.kind"] == "sweep")
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    for config in (short, long):
        run = children[config.name]
        steps = list(range(5, config.train.steps + 1, 5))
        for key in run.data.metrics:
            points = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            assert points == ([0] if key.startswith("final/") else steps), key
