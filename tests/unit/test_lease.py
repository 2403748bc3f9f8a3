"""A bucket's folder is held by one: whoever is cut off, late or slow finds out that it is another's, and ends."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from faulty_s3 import Server, serving
from runs import config_of

from ovos_ray import lease
from ovos_ray.config import override
from ovos_ray.errors import HeldError, StorageError
from ovos_ray.lease import Lease, leased
from ovos_ray.run.here import fit_here, local_stream
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest
from ovos_ray.storage import Storage
from ovos_ray.train.run_folder import RunFolder

HOLD = """
import sys, time
from ovos_ray import lease
from ovos_ray.config import override
from ovos_ray.storage import Storage
lease._BEAT_S = 0.05
with lease.leased(Storage(sys.argv[1]), lambda who: 0.0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT_S", 0.02)
    monkeypatch.setattr(lease, "_SILENT_S", 0.3)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('server').uri}/{tmp_path.name}/run"


class Reached(Storage):
    """A bucket, as one machine sees it that may be cut off; told before it writes."""

    def __init__(self, folder: str, before_write: Callable[[], object] = lambda: None) -> None:
        super().__init__(folder)
        self.away, self.before_write = False, before_write
        self.num_refused = 0

    def read(self, *parts: str) -> bytes:
        if self.away:
            self.num_refused += 1
            raise StorageError("away")
        return super().read(*parts)

    def put(self, content: bytes, *parts: str) -> None:
        self.before_write()
        if self.away:
            raise StorageError("away")
        super().put(content, *parts)


def no_patience(who: str) -> float:
    return 0.0


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_lost(held: Lease) -> bool:
    try:
        held.check()
    except HeldError:
        return True
    return False


@pytest.mark.slow
def test_it_is_held_by_one_and_void_soon_after_its_holder_was_killed(place: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(lease, "_BEAT_S", 0.05)
    monkeypatch.setattr(lease, "_SILENT_S", 1.0)
    storage, told = Storage(place), list[str]()

    def waiting(who: str) -> float:
        told.append(who)
        return 0.0

    with subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError), leased(storage, waiting):
            pytest.fail("two have it")
        assert len(told) == 1
        assert told[0].startswith(f"process {holder.pid} on ")
        assert holder.poll() is None, "the first one goes on"
        os.kill(holder.pid, signal.SIGKILL)
    with leased(storage, waiting):
        mine = storage.read("lease")
        assert mine.decode().startswith(f"process {os.getpid()} on ")
        until(lambda: storage.read("lease") != mine)  # it is renewed
    assert not storage.exists("lease"), "the next one need not wait"


def test_who_was_cut_off_finds_out_and_leaves_the_others_lease_alone(place: str) -> None:
    cut_off, other, third = Reached(place), Reached(place), Reached(place)
    with leased(cut_off, no_patience) as first:
        worker = pickle.loads(pickle.dumps(first))  # trains elsewhere for the same holder
        cut_off.away = True
        with leased(other, no_patience) as second:
            assert not is_lost(first), "it cannot know yet"
            cut_off.away = False
            until(lambda: is_lost(first))
            with worker.followed():
                until(lambda: is_lost(worker))
            with pytest.raises(TimeoutError), leased(third, no_patience):
                pytest.fail("two have it")
            assert not is_lost(second)
            taken_over = other.read("lease")
            with pytest.raises(HeldError, match=f"taken over by process {os.getpid()}"):
                first.look()
        assert not other.exists("lease")
        other.write(taken_over, "lease")
    assert other.read("lease") == taken_over, "only one's own is removed"


def test_of_two_that_come_at_once_one_remains_also_where_a_write_is_slow(place: str) -> None:
    both_see_nobody, quick_one_holds = threading.Barrier(2), threading.Event()
    quick = Reached(place, before_write=lambda: None if quick_one_holds.is_set() else both_see_nobody.wait(20))
    began = threading.Event()

    def slowly() -> None:
        if not began.is_set():
            began.set()
            both_see_nobody.wait(20)
            quick_one_holds.wait(20)

    slow, late = Reached(place, before_write=slowly), list[Lease]()

    def come_late(stack: ExitStack) -> None:
        late.append(stack.enter_context(leased(slow, no_patience)))

    with ExitStack() as stack:
        thread = threading.Thread(target=come_late, args=(stack,))
        thread.start()
        first = stack.enter_context(leased(quick, no_patience))
        quick_one_holds.set()
        thread.join(20)
        until(lambda: is_lost(first) or is_lost(late[0]))
        seen = slow.read("lease")
        until(lambda: slow.read("lease") != seen)  # the other one has looked, and has renewed it
        assert [is_lost(first), is_lost(late[0])].count(True) == 1


def test_who_writes_slowly_waits_twice_as_long_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still but where something takes its time."""
    now, storage = 0.0, Storage(str(tmp_path))
    others = {"lands after": 10.0}

    def takes(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now >= others["lands after"]:
            storage.put(b"another\ntoken of another\n0\n", "lease")

    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now), "sleep": staticmethod(takes)})
    monkeypatch.setattr(lease, "time", clock)

    def write(beat: int) -> None:
        takes(4.0)
        storage.put(b"me\nmine\n0\n", "lease")

    assert not lease._claimed(storage, "", "mine", write)
    storage.remove("lease")
    now, others["lands after"] = 0.0, 1000.0
    assert lease._claimed(storage, "", "mine", write)
    assert now >= 4.0 + 2 * 4.0


@pytest.mark.slow
def test_a_beat_costs_one_write(server: Server) -> None:
    storage, beats = Reached(f"{server.uri}/cost"), list[int]()
    with leased(storage, no_patience):
        storage.before_write = lambda: beats.append(1)
        before = server.fail(0)
        until(lambda: len(beats) >= 5)
        storage.away = True
        until(lambda: storage.num_refused > 0)  # the beat before has ended
        asked = {kind: number - before.get(kind, 0) for kind, number in server.fail(0).items()}
    writes = {kind: number for kind, number in asked.items() if kind.split()[0] not in ("GET", "HEAD") and number}
    assert set(writes) == {"PUT fine"}
    assert abs(writes["PUT fine"] - len(beats)) <= 1
    assert asked["GET fine"] + asked["HEAD fine"] <= 2 * (len(beats) + 2)


def test_a_run_whose_folder_is_anothers_ends_at_its_next_step(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path)
    steps: list[int] = []

    class Lost(Lease):
        def check(self) -> None:
            steps.append(1)
            if len(steps) > 3:
                raise HeldError("taken over")

    request = dataclasses.replace(RunRequest(config, "study", "one"), lease=Lost())
    with pytest.raises(HeldError):
        train_run(request, local_stream(config), device=torch.device("cpu"))
    folder = RunFolder.of(config)
    assert folder.result() is None
    assert (folder.checkpoints().latest() or 0) <= 3


def test_a_trial_whose_run_is_anothers_leaves_no_word_in_its_folder(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.on_ray import stopping, trial

    config = config_of(shards, tmp_path)
    requests, reports = {"a": RunRequest(config, "study", "a")}, list[dict[str, Any]]()

    def taken_over(*_: Any, **__: Any) -> None:
        trial.tune.report({"step": 4.0, "val/jf": 50.0})
        raise HeldError("taken over")

    monkeypatch.setattr(trial, "make_run", taken_over)
    monkeypatch.setattr(trial.tune, "report", reports.append)
    trial.run_trial({"trial": "a"}, requests=requests)

    class Ended:
        config = MappingProxyType({"trial": "a"})
        last_result = reports[-1]

    ends = stopping.TrialEnds(requests)
    ends.on_trial_complete(0, [], Ended)
    ends.wait()
    assert not [path for path in tmp_path.rglob("*.json") if path.is_relative_to(tmp_path / "run")]
    Ended.last_result = reports[0]
    ends = stopping.TrialEnds(requests)
    ends.on_trial_complete(0, [], Ended)
    ends.wait()
    assert RunFolder.of(config).result() is not None, "the control: a scheduler has stopped it"


@pytest.mark.slow
def test_a_driver_that_comes_back_to_its_run_in_a_bucket_writes_nothing_more(
    server: Server, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off in its second step; meanwhile another one makes the run, to its end."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("ovos_ray.run.lock._PATIENCE_HERE_S", 0.0)
    config = override(config_of(shards, tmp_path), {"storage": f"{server.uri}/two/runs"})
    run, look, away = RunFolder.of(config), Lease.look, list[Lease]()

    def cannot_look(self: Lease) -> None:
        if not away:
            away.append(self)  # the first to look is the first driver's
        if self is away[0] and len(away) == 1:
            raise StorageError("away")
        look(self)

    left: dict[str, bytes] = {}

    def files() -> dict[str, bytes]:
        from pyarrow import fs

        below = run.storage.fs.get_file_info(fs.FileSelector(run.storage.root, recursive=True))
        return {info.path: run.storage.fs.open_input_stream(info.path).read() for info in below if info.is_file}

    def other_one(record: dict[str, Any]) -> None:
        if record["step"] >= 1 and not away:
            monkeypatch.setattr(Lease, "look", cannot_look)
            until(lambda: len(away) == 1)
            fit_here(RunRequest(config, "study", "one"))
            left.update(files())
            away.append(away[0])  # the bucket is in its reach again

    with pytest.raises(HeldError):
        fit_here(RunRequest(config, "study", "one", watcher=other_one))
    assert run.result() is not None
    assert files() == left
