"""Two drivers of one run in a bucket, under Ray: the second is refused; one that has lost its lease ends."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from faulty_s3 import serving, upload
from processes import wait_for
from tiny_study import make_dataset

from ovos_ray.storage import Storage

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


def test_a_second_driver_is_refused_the_firsts_worker_goes_on_and_a_lost_lease_ends_it(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    settings = {
        "name": "one",
        "network.name": "stcn-tiny",
        "data.shards": "s3://ovos/shards",
        "data.clip_length": 4,
        "data.batch_size": 2,
        "data.crop_size": 48,
        "train.steps": 1_000_000,
        "train.checkpoint_every": 20,
        "train.num_threads": 1,
        "train.cpus_per_worker": 0.5,
        "storage": "s3://ovos/runs",
        "evaluation.root": "none",
        "tracking_uri": "",
    }

    def driver(home: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ovos_ray", "train", "trainables.one_shot"]
        command += [f"{key}={value}" for key, value in settings.items()]
        environment = {**os.environ, "HOME": str(tmp_path / home)}
        with (tmp_path / f"{home}.log").open("w") as log:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def said_by(home: str) -> str:
        return " ".join((tmp_path / f"{home}.log").read_text().split())

    with serving() as server:
        upload(tmp_path / "shards", f"{server.uri}/shards")
        run = Storage(f"{server.uri}/runs/one")

        def goes_on() -> None:
            before = (run / "checkpoints").folders()
            wait_for(lambda: (run / "checkpoints").folders()[-1:] > before[-1:] or first.poll() is not None, 120)
            assert first.poll() is None, said_by("first")

        with ExitStack() as stack:
            first = stack.enter_context(driver("first"))
            stack.callback(first.kill)
            goes_on()
            second = stack.enter_context(driver("second"))
            stack.callback(second.kill)
            assert second.wait(180) != 0
            assert f"run one is being made by process {first.pid} on " in (said := said_by("second")), said
            goes_on()
            run.write(b"process 1 on another\ntoken\n0\n", "lease")
            assert first.wait(60) != 0
        assert "taken over by process 1 on another" in (said := said_by("first")), said
        assert run.read("lease").startswith(b"process 1 on another")
        assert not run.exists("failure.json")
        assert not run.exists("result.json")
