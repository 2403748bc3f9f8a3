"""Two drivers of one run in a bucket, under Ray: the second is refused; one that has lost its lease ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from faulty_s3 import serving, upload
from processes import wait_for
from pyarrow import fs
from runs import training_workers
from tiny_study import make_dataset

from ovos_ray.storage import Storage

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]

TAKEN = b"process 1 on another\ntoken\n0\n"


SETTINGS = {
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


class Drivers:
    """Drivers of one run, each with a cluster of its own, in a folder whose shards lie in a bucket."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        make_dataset(folder)
        self.folder, self.stack = folder, stack
        server = stack.enter_context(serving())
        upload(folder / "shards", f"{server.uri}/shards")
        self.run = Storage(f"{server.uri}/runs/one")

    def start(
        self, home: str, *more: str, verb: Sequence[str] = ("train", "trainables.one_shot")
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ovos_ray", *verb]
        command += [*(f"{key}={value}" for key, value in SETTINGS.items()), *more]
        environment = {**os.environ, "HOME": str(self.folder / home)}
        with (self.folder / f"{home}.log").open("w") as log:
            one = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.stack.enter_context(one)
        self.stack.callback(one.kill)
        return one

    def said_by(self, home: str) -> str:
        return " ".join((self.folder / f"{home}.log").read_text().split())

    def goes_on(self, one: subprocess.Popen[bytes], home: str) -> None:
        before = self.checkpoints()
        wait_for(lambda: self.checkpoints()[-1:] > before[-1:] or one.poll() is not None, 120)
        assert one.poll() is None, self.said_by(home)

    def checkpoints(self) -> list[str]:
        return (self.run / "checkpoints").folders()


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Drivers]:
    with ExitStack() as stack:
        yield Drivers(tmp_path, stack)


def test_a_second_driver_is_refused_the_firsts_worker_goes_on_and_a_lost_lease_ends_it(drivers: Drivers) -> None:
    first = drivers.start("first")
    drivers.goes_on(first, "first")
    second = drivers.start("second")
    assert second.wait(180) != 0
    assert f"run one is being made by process {first.pid} on " in (said := drivers.said_by("second")), said
    drivers.goes_on(first, "first")
    drivers.run.write(TAKEN, "lease")
    assert first.wait(60) != 0
    assert "taken over by process 1 on another" in (said := drivers.said_by("first")), said
    assert drivers.run.read("lease") == TAKEN
    assert not drivers.run.exists("failure.json")
    assert not drivers.run.exists("result.json")


def test_a_run_whose_driver_stood_still_ends_all_its_workers_when_another_has_taken_it_over(drivers: Drivers) -> None:
    first = drivers.start("first", "train.num_workers=2")
    drivers.goes_on(first, "first")
    workers = workers_of(first)
    assert len(workers) == 2
    first.send_signal(signal.SIGSTOP)  # no heartbeats any more; its workers train on
    try:
        before = drivers.checkpoints()
        wait_for(lambda: drivers.checkpoints()[-1:] > before[-1:])
        drivers.run.write(TAKEN, "lease")
        before = drivers.checkpoints()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, "they noticed by themselves"
        assert len(set(drivers.checkpoints()) - set(before)) <= 1, "one may have been under way"
        left = contents(drivers.run)
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(60) != 0
    assert "taken over by process 1 on another" in (said := drivers.said_by("first")), said
    assert contents(drivers.run) == left, "the driver has written, and removed, nothing"
    assert drivers.run.read("lease") == TAKEN


def test_a_study_that_was_taken_over_ends_its_trials_and_begins_no_more(drivers: Drivers) -> None:
    study = ("sweep", "search_spaces.smoke", "--max-concurrent", "1")
    first = drivers.start("first", "seeds=0", verb=study)
    wait_for(lambda: any((drivers.run / one / "checkpoints").folders() for one in trials_of(drivers.run)), 180)
    (begun,) = trials_of(drivers.run)
    trainers = training_workers(first.pid)
    assert trainers
    drivers.run.write(TAKEN, "lease")
    assert first.wait(60) != 0
    assert "taken over by process 1 on another" in (said := drivers.said_by("first")), said
    assert "failed" not in said
    _, alive = psutil.wait_procs(trainers, timeout=30)
    assert not alive
    assert drivers.run.read("lease") == TAKEN
    assert trials_of(drivers.run) == [begun]
    assert not (drivers.run / begun).exists("failure.json")
    assert not (drivers.run / begun).exists("result.json")


def trials_of(study: Storage) -> list[str]:
    """The trials of a study that have been begun."""
    return [name for name in study.folders() if (study / name).exists("config.json")]


def workers_of(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of Ray Train that train for a driver; Ray names processes by what they do."""
    family = psutil.Process(driver.pid).children(recursive=True)
    return [process for process in family if "TrainWorker" in " ".join(process.cmdline())]


def contents(folder: Storage) -> dict[str, tuple[int, Any]]:
    """Size and time of all files."""
    found = folder.fs.get_file_info(fs.FileSelector(folder.root, recursive=True))
    return {info.path: (info.size, info.mtime) for info in found if info.type == fs.FileType.File}
