"""Elastic training: a node dies, the run goes on with the workers that are left, on the CPUs that they hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import last_line
from runs import Weights, make_shards, result_of, train_alone

from ovos_ray.config import override

REPOSITORY = Path(__file__).resolve().parents[2]


def distance(a: Weights, b: Weights) -> float:
    return float(torch.cat([(a[name] - b[name]).flatten().double() for name in a]).norm())


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_with_the_workers_that_are_left(tmp_path: Path) -> None:
    make_shards(tmp_path)
    # A cluster of its own needs a process of its own: the session's driver is attached to another one.
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "support")])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    environment.pop("RAY_ADDRESS", None)
    script = [sys.executable, str(REPOSITORY / "tests" / "support" / "elastic_run.py"), str(tmp_path)]
    ended = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]

    from elastic_run import STEPS, elastic

    told = last_line(ended.stdout)
    assert 0 < told.get("step_at_kill", 0) < STEPS, ended.stderr[-4000:]
    events = (tmp_path / "events").read_text()
    assert re.findall(r"(?:starting|resuming).* (\d) worker\(s\)", events) == ["3", "2"], events

    config = elastic(tmp_path)
    together, alone = result_of(config), train_alone(override(config, {"storage": str(tmp_path / "alone")}))
    other = train_alone(override(config, {"storage": str(tmp_path / "other"), "seed": 1}))
    assert distance(together, alone) < 0.3 * distance(other, alone), "the same clips in another arrangement"
