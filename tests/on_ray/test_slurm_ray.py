"""A study as a Slurm job of two nodes: stopped at the time limit, queued again, finished with unchanged weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_slurm
import pytest
from conftest import REPOSITORY
from runs import result_of, same
from tiny_study import make_dataset, tiny_config, undisturbed

from ovos_ray.config.digest import resolve_paths
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace
from ovos_ray.train.run_folder import RunFolder

STEPS = 120
_STUDY = f"""
from pathlib import Path
from ovos_ray.study.space import SearchSpace
from tiny_study import tiny_config

def recipe():
    return tiny_config(Path({{root!r}}), steps={STEPS})

def study():
    axes = {{{{"method.backward": ("T-step", "2-step")}}}}
    return SearchSpace(name="queued", trainable="mine.recipe", axes=axes, seeds=(0,))
"""


def wait_for(what: str, found: object, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not found():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what} did not come: {log.read_text() if log.exists() else ''}"
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
def test_a_job_at_its_limit_is_queued_again_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    (tmp_path / "mine.py").write_text(_STUDY.format(root=str(tmp_path)))
    fake_slurm.install(tmp_path / "bin")
    home = tmp_path / "slurm"
    home.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "support")]),
        "SLURM_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "ovos_ray", "submit", "--slurm", "--nodes", "2", "--gpus-per-node", "0"]
    command += ["--cpus-per-node", "1", "--", "sweep", "mine.study", f"storage={tmp_path / 'runs'}"]
    sent = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert sent.returncode == 0, sent.stderr
    assert "job 4321" in sent.stdout

    space = SearchSpace(name="queued", trainable="none", axes={"method.backward": ("T-step", "2-step")}, seeds=(0,))
    trials = expand(space, resolve_paths(tiny_config(tmp_path, steps=STEPS), tmp_path))[0]
    folders = [RunFolder.of(trial.config) for trial in trials]
    process = lambda: int((home / "pid").read_text())  # noqa: E731
    try:
        # Trials take 0.45 of a CPU, so that both train at a time, and each of them must have something to lose.
        under_way = lambda: all(0 < (folder.checkpoints().latest() or 0) < STEPS for folder in folders)  # noqa: E731
        wait_for("a checkpoint", under_way, 240, home / "log")
        os.kill(process(), signal.SIGUSR1)  # what Slurm sends to the script two minutes before the limit
        wait_for("the second launch", lambda: (home / "launches").read_text().count("\n") == 2, 120, home / "log")
        interrupted = [folder.checkpoints().latest() or 0 for folder in folders]
        assert all(0 < step < STEPS for step in interrupted), interrupted
        wait_for("the end", lambda: all(folder.result() for folder in folders), 300, home / "log")
        wait_for("the end of the job", lambda: not Path(f"/proc/{process()}").exists(), 120, home / "log")
    finally:
        if Path(f"/proc/{process()}").exists():
            os.killpg(process(), signal.SIGTERM)
    log = (home / "log").read_text()
    assert "queued again" in log
    assert "resuming at step" in log
    assert not Path("/tmp/ovos-4321").exists()
    for trial in trials:
        assert same(result_of(trial.config), undisturbed(trial.config, tmp_path / "alone")), trial.name
