"""A cluster scaled to zero, with Ray's own autoscaler: commands wait for nodes, which come, and go afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from gates import Gates
from lost_node_study import GATE
from processes import RayHead, wait_for
from tiny_study import make_dataset

_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "one-shot-one-shot-one-shot"}


SUPPORT = REPOSITORY / "tests" / "support"


def told_by(head: RayHead, root: Path, *command: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[str, int]:
    """Runs a command on the cluster; returns what it has told, and the most nodes that there were."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_A")}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, SUPPORT)))}
    # As in a job: a package that is sent along would be unpacked by every new node over the one in use, for processes
    # of one machine share a folder.
    job = json.dumps({"runtime_env": {"env_vars": paths}})
    with (root / "told").open("w+") as log:
        running = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**clean, **_TOKEN, **paths, "RAY_ADDRESS": head.gcs_address, "RAY_JOB_CONFIG_JSON_ENV_VAR": job},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        nodes = [0]

        def ended() -> bool:
            nodes.append(head.num_nodes)
            meanwhile()
            return running.poll() is not None

        try:
            wait_for(ended, 900)
        finally:
            running.kill()
        log.seek(0)
        told = log.read()
    assert running.returncode == 0, told
    return told, max(nodes)


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
def test_runs_and_studies_start_nodes_and_give_them_back(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    settings = {
        "data.shards": tmp_path / "shards",
        "data.crop_size": 48,
        "data.clip_length": 4,
        "data.batch_size": 2,
        "evaluation.root": tmp_path / "dataset",
        "network.name": "stcn-tiny",
        "tracking_uri": "",
        "train.steps": 20,
        "train.cpus_per_worker": 3,
    }
    with tempfile.TemporaryDirectory(prefix="ovos-ray-") as short:  # Ray's sockets need a short path
        head = RayHead(Path(short) / "ray", _TOKEN, num_cpus=0, worker_cpus=4)
        try:
            wait_for(lambda: head.num_nodes == 0, 120)
            # A node has room for one of the trials.
            for verb, what, trials in (("train", "trainables.one_shot", 1), ("sweep", "search_spaces.smoke", 2)):
                own = settings | {"storage": tmp_path / verb}  # or the study would take the run over
                command = ["-m", "ovos_ray", verb, what, *(f"{key}={value}" for key, value in own.items())]
                told, nodes = told_by(head, tmp_path, *command)
                assert "min for nodes: 1 workers x 3 CPUs = 3 CPUs are asked for, the cluster has 0" in told
                assert len(re.findall(r"step +20/20  finished  jf", told)) == trials, told
                assert nodes == trials
                wait_for(lambda: head.num_nodes == 0, 180)
            told, nodes = told_by(head, tmp_path, str(SUPPORT / "autoscaled_study.py"), str(tmp_path))
            events = (tmp_path / "events").read_text()
            assert "min for nodes: 1 workers x 3 CPUs = 3 CPUs are asked for, the cluster has 0" in events
            seen = re.findall(r"(starting|finished|\d trials at a time).*", events)
            more, fewer = "2 trials at a time", "1 trials at a time"
            assert sorted(seen[:3]) == [more, "starting", "starting"], events + told
            assert seen[3:] == ["finished", fewer, "finished"], events + told
            assert nodes == 2
            wait_for(lambda: head.num_nodes == 0, 180)

            gates = Gates(tmp_path / "gates", (GATE,))

            def lose_the_node() -> None:
                if not (gates.folder / "open").exists() and list(gates.folder.glob(f"*-{GATE}")):
                    head.kill_nodes()
                    gates.open()

            command = [str(SUPPORT / "lost_node_study.py"), str(tmp_path)]
            told, nodes = told_by(head, tmp_path, *command, meanwhile=lose_the_node)
            events = (tmp_path / "lost-events").read_text()
            assert len(list(gates.folder.glob(f"*-{GATE}"))) == 2, "one was lost there, the other came past"
            assert "failed" not in events, events + told
            assert len(list((tmp_path / "lost").glob("lost/*/result.json"))) == 2, events + told
            assert re.findall(r"\bstarting|resuming at step [24]|finished", events) in (
                ["starting", f"resuming at step {step}", "finished", "starting", "finished"] for step in (2, 4)
            ), events
            # What Train's lost controller has asked for is forgotten after 180 s, and a node idles 15 s then.
            wait_for(lambda: head.num_nodes == 0, 300)
        finally:
            head.stop()
