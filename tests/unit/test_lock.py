"""Who may train a run: one at a time, also in a bucket, where a lease stands in for the kernel's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovos_ray.errors import DataError
from ovos_ray.run import lock
from ovos_ray.storage import Storage

HOLD = """
import sys, time
from ovos_ray.storage import Storage
from ovos_ray.run import lock
lock._BEAT_S = 0.05
with lock._lease(Storage(sys.argv[1]), lambda who: 0.0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease of the folder."""
    monkeypatch.setattr(lock, "_BEAT_S", 0.05)
    monkeypatch.setattr(lock, "_SILENT_S", 1.0)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_that_is_a_link_empties_no_file_of_the_users(tmp_path: Path) -> None:
    """In a folder of a stranger's, whose run is gone on with."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(DataError, match="is a link"), lock.hold(Storage(str(tmp_path / "run")), "run", print):
        pytest.fail("it is held")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.slow
def test_a_lease_is_held_by_one_and_ends_soon_after_its_holder(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    storage, told = Storage(str(tmp_path)), list[str]()

    def waiting(who: str) -> float:
        told.append(who)
        return 0.0

    with pytest.raises(TimeoutError), lock._lease(storage, waiting):
        pytest.fail("two have it")
    assert len(told) == 1
    assert told[0].startswith(f"process {holder.pid} on ")
    assert holder.poll() is None, "the first one goes on"

    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock._lease(storage, waiting):
        mine = storage.read("lease").decode()
        assert mine.startswith(f"process {os.getpid()} on ")
        deadline = time.monotonic() + 20
        while storage.read("lease").decode() == mine:
            assert time.monotonic() < deadline, "it is not renewed"
            time.sleep(0.02)
    assert not storage.exists("lease"), "the next one need not wait"
