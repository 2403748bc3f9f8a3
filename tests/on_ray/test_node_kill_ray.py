"""A node dies in the middle of a sweep: all trials are completed on the other one, with unchanged weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import last_line
from runs import result_of, same
from tiny_study import make_dataset, undisturbed

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_survives_the_death_of_the_node_it_trains_on(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    make_dataset(tmp_path)
    # A cluster of its own needs a process of its own: the session's driver is attached to another one.
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "support")])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    environment.pop("RAY_ADDRESS", None)
    script = [sys.executable, str(REPOSITORY / "tests" / "support" / "two_nodes.py"), str(tmp_path)]
    ended = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    told = last_line(ended.stdout)

    from two_nodes import study

    _, trials = study(tmp_path)
    assert told.get("steps_at_kill"), f"the node must die while it trains: {ended.stderr[-4000:]}"
    assert told["killed"] not in told["alive"]
    assert told["failed"] == []
    assert told["finished"] == sorted(trial.name for trial in trials)
    for trial in trials:
        assert same(result_of(trial.config), undisturbed(trial.config, tmp_path / "alone")), trial.name

    client = MlflowClient(trials[0].config.tracking_uri)
    experiment = client.get_experiment_by_name("nodes")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["ovos.kind"] for run in runs) == ["sweep", "trial", "trial", "trial"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        for key in run.data.metrics:
            points = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            assert len(points) == len(set(points)), f"{key} has a step twice"
