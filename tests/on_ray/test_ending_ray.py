"""Ctrl-C under Ray, as a terminal sends it to the whole group of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_ending import INTERRUPTED, SETTINGS

from ovos_ray.train.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.parametrize(
    ("verb", "loses_nothing"), [(("train", "trainables.one_shot"), True), (("sweep", "search_spaces.smoke"), False)]
)
def test_ctrl_c_says_how_to_go_on_and_calls_nothing_failed(
    verb: tuple[str, str], loses_nothing: bool, shards: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "data.shards": shards, "storage": tmp_path / "runs", "train.cpus_per_worker": 0.5}
    command = [sys.executable, "-m", "ovos_ray", *verb, *(f"{key}={value}" for key, value in settings.items())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with ExitStack() as stack:
        one: subprocess.Popen[str] = stack.enter_context(
            subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes)
        )
        stack.callback(one.kill)
        assert one.stdout is not None
        assert any("step " in line and "loss" in line for line in one.stdout)
        os.killpg(one.pid, signal.SIGINT)
        said = one.stdout.read()
        assert one.wait() == 130, said
    assert INTERRUPTED in said
    assert "failed" not in said
    for path in (tmp_path / "runs").rglob("config.json"):
        run = RunFolder.at(str(path.parent.parent), path.parent.name)
        assert not run.storage.exists("failure.json")
        assert run.result() is None
        assert not loses_nothing or run.checkpoints().latest(), said
