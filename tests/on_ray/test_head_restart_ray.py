"""The head of a cluster is lost in the middle of a study: on another one the same command finishes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import REPOSITORY
from processes import RayHead, wait_for
from runs import result_of, same
from tiny_study import make_dataset, undisturbed

from ovos_ray.config import override
from ovos_ray.train.run_folder import RunFolder

STEPS = 60
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "one-shot-one-shot-one-shot"}


def submit(root: Path, head: RayHead) -> subprocess.Popen[str]:
    settings = {
        "data.shards": root / "shards",
        "evaluation.root": root / "dataset",
        "storage": root / "runs",
        "tracking_uri": "",
        "network.name": "stcn-tiny",
        "data.crop_size": 48,
        "data.clip_length": 4,
        "data.batch_size": 2,
        "train.steps": STEPS,
        "train.checkpoint_every": 5,
    }
    study = ["sweep", "search_spaces.smoke", "--max-concurrent", "1", *(f"{k}={v}" for k, v in settings.items())]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")}
    return subprocess.Popen(
        [sys.executable, "-m", "ovos_ray", "submit", "--", *study],
        cwd=REPOSITORY,
        env={**clean, **_TOKEN, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": head.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.slow
def test_a_study_whose_head_was_lost_is_finished_by_the_same_command_on_another(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    with tempfile.TemporaryDirectory(prefix="ovos-ray-") as short:  # Ray's sockets need a short path
        head = RayHead(Path(short) / "a", _TOKEN, num_cpus=2)
        try:
            job = submit(tmp_path, head)
            complete = "runs/smoke/*/checkpoints/step-*/complete.json"  # its folder is there while it is still written
            wait_for(lambda: job.poll() is not None or any(tmp_path.glob(complete)), 600)
            assert job.poll() is None, job.communicate()[0]
        finally:
            head.kill()
        job.kill()  # it would wait minutes for the head to be back
        job.communicate()
        head = RayHead(Path(short) / "b", _TOKEN, num_cpus=2)
        try:
            again = submit(tmp_path, head)
            finished, _ = again.communicate(timeout=600)
        finally:
            head.stop()
    assert again.returncode == 0, finished
    assert len(finished.split("finished  jf")) - 1 == 2, finished
    assert re.search(r"resuming at step [1-9]", finished), finished
    for path in sorted(tmp_path.glob("runs/smoke/*/result.json")):
        config = RunFolder.at(str(path.parents[1]), path.parent.name).config()
        assert same(result_of(config), undisturbed(config, tmp_path / "alone")), config.name
        if config.method.backward == "2-step":
            other = undisturbed(override(config, {"seed": 1}), tmp_path / "other")
            assert not same(result_of(config), other)
