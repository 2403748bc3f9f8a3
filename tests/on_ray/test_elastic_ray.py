"""Clusters that grow and shrink: a run waits for a node, and goes on with the workers that a dead node leaves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import last_line
from runs import Weights, make_shards, result_of, same, train_alone

from ovos_ray import networks
from ovos_ray.config import override

REPOSITORY = Path(__file__).resolve().parents[2]


def distance(a: Weights, b: Weights) -> float:
    return float(torch.cat([(a[name] - b[name]).flatten().double() for name in a]).norm())


def told_by(script: str, root: Path, *what: str) -> tuple[dict[str, Any], str]:
    """Runs a script on a cluster of its own, and so in a process of its own; returns what it told, and its log."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "support")])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(REPOSITORY / "tests" / "support" / script), str(root), *what]
    ended = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return last_line(ended.stdout), ended.stderr[-4000:]


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_waits_for_a_node_and_outlives_it_when_it_is_taken_away(tmp_path: Path) -> None:
    make_shards(tmp_path)
    told, log = told_by("growing_run.py", tmp_path, "run")

    from growing_run import leaving

    config, events = leaving(tmp_path), (tmp_path / "events").read_text()
    assert told["waited_alone"], log
    assert "for nodes: 1 workers x 1 CPUs = 1 CPUs are asked for, the cluster has 0" in events
    assert "will be taken away; a checkpoint is written now and every few seconds" in events
    assert 0 < told["written"] < config.train.steps
    resumed = re.findall(r"resuming at step (\d+)", events)
    assert [int(step) >= told["written"] for step in resumed] == [True], events + log
    assert same(result_of(config), train_alone(override(config, {"storage": str(tmp_path / "alone")})))


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
def test_a_study_waits_for_a_node_and_grows_with_the_next(tmp_path: Path) -> None:
    make_shards(tmp_path)
    told_by("growing_run.py", tmp_path, "study")
    events = (tmp_path / "events").read_text()
    assert "waiting up to 5 min for nodes: 1 workers x 1 CPUs = 1 CPUs are asked for, the cluster has 0" in events
    assert re.findall("starting|finished", events) == ["starting", "starting", "finished", "finished"], events


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_with_the_workers_that_are_left(tmp_path: Path) -> None:
    make_shards(tmp_path)
    told, log = told_by("elastic_run.py", tmp_path)

    from elastic_run import STEPS, elastic

    assert 0 < told.get("step_at_kill", 0) < STEPS, log
    events = (tmp_path / "events").read_text()
    assert re.findall(r"(?:starting|resuming).* (\d) workers on", events) == ["3", "2"], events

    config = elastic(tmp_path)
    together, alone = result_of(config), train_alone(override(config, {"storage": str(tmp_path / "alone")}))
    other = train_alone(override(config, {"storage": str(tmp_path / "other"), "seed": 1}))
    start = networks.build(config.network.name, seed=config.seed).state_dict()
    # The same clips, summed in another order: what rounding has made of that in 20 steps.
    assert distance(together, alone) < 0.02 * distance(alone, start)
    assert distance(other, alone) > 0.5 * distance(alone, start)
