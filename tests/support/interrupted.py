"""Ctrl-C, as a terminal sends it: to a command and all processes of its group, once it trains."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

_WORD = "interrupted; the same command goes on where this one stopped"
_SETTINGS = {
    "name": "one",
    "network.name": "stcn-tiny",
    "data.clip_length": 4,
    "data.batch_size": 2,
    "data.crop_size": 32,
    "train.steps": 100_000,
    "train.checkpoint_every": 100_000,
    "train.log_every": 1,
    "train.num_threads": 1,
    "train.cpus_per_worker": 0.5,
    "evaluation.root": "none",
    "tracking_uri": "",
}


_CALLER = """
import sys
import ray
import ovos_ray.api
ray.init("local", num_cpus=2, log_to_driver=False)
try:
    ovos_ray.api.train("trainables.one_shot", sys.argv[1:], ray=True)
except KeyboardInterrupt:
    states = [group["state"] for group in ray.util.placement_group_table().values()]
    print("left:", states.count("CREATED"), ray.available_resources().get("CPU"))
    raise SystemExit(130)
"""


def interrupted(words: list[str], shards: Path, folder: Path) -> list[Path]:
    """Trains for ever in a folder, presses Ctrl-C, and returns the folders of the runs that were begun."""
    runs, said = _interrupted(["-m", "ovos_ray", *words], shards, folder)
    assert said.splitlines()[-1] == _WORD
    assert "failed" not in said
    return runs


def interrupted_caller(words: list[str], shards: Path, folder: Path) -> str:
    """Does the same in a program that goes on using Ray; returns what it says of what is left there."""
    _, said = _interrupted(["-c", _CALLER, *words], shards, folder)
    (left,) = [line for line in said.splitlines() if line.startswith("left: ")]
    return left


def _interrupted(words: list[str], shards: Path, folder: Path) -> tuple[list[Path], str]:
    settings = {**_SETTINGS, "data.shards": shards, "storage": folder / "runs"}
    command = [sys.executable, *words, *(f"{key}={value}" for key, value in settings.items())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored in the background
    ) as one:
        try:
            assert one.stdout is not None
            assert any("step " in line and "loss" in line for line in one.stdout)
            os.killpg(one.pid, signal.SIGINT)
            said = one.stdout.read()
            assert one.wait() == 130, said
        finally:
            one.kill()
    return [path.parent for path in (folder / "runs").rglob("config.json")], said
