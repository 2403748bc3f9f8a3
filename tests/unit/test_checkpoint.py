"""A checkpoint is complete or does not count, whatever was killed, cut or tampered with."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import CheckpointError
from ovos_ray.storage import Storage
from ovos_ray.train.checkpoint import CheckpointStore, _marker
from ovos_ray.train.run_folder import RunFolder


def state(step: int) -> dict[str, object]:
    return {"network": {"weight": torch.full((64, 64), float(step))}, "step": step, "config": {"seed": 0}}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(Storage(str(tmp_path / "checkpoints")), keep=2)


def test_what_is_saved_is_loaded_and_old_ones_go(store: CheckpointStore) -> None:
    assert store.latest() is None
    for step in (10, 20, 30):
        store.save(step, state(step))
    assert store.latest() == 30
    assert store.storage.folders() == ["step-00000020", "step-00000030"]
    loaded = store.load(30)
    assert torch.equal(loaded["network"]["weight"], torch.full((64, 64), 30.0))
    assert loaded["config"] == {"seed": 0}


@pytest.mark.parametrize("keep_bytes", [0, 1, 100, 5000, -1])
def test_a_truncated_checkpoint_is_passed_over(store: CheckpointStore, keep_bytes: int) -> None:
    store.save(10, state(10))
    store.save(20, state(20))
    path = Path(store.storage.path("step-00000020", "state.pt"))
    content = path.read_bytes()
    path.write_bytes(content[:keep_bytes])
    assert store.latest() == 10
    with pytest.raises(CheckpointError, match="damaged"):
        store.load(20)


def test_a_flipped_bit_and_a_missing_marker_are_noticed(store: CheckpointStore) -> None:
    for step in (10, 20):
        store.save(step, state(step))
    path = Path(store.storage.path("step-00000020", "state.pt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert store.latest() == 10
    Path(store.storage.path("step-00000010", "complete.json")).unlink()
    assert store.latest() is None


def test_leftovers_of_later_steps_do_not_push_out_good_checkpoints(store: CheckpointStore) -> None:
    leftover = Path(store.storage.path("step-00000099"))
    leftover.mkdir(parents=True)
    (leftover / "state.pt").write_bytes(b"half")
    for step in (10, 20, 30):
        store.save(step, state(step))
    assert store.latest() == 30
    assert store.load(20)["step"] == 20


WRITER = """
import sys, torch
from ovos_ray.storage import Storage
from ovos_ray.train.checkpoint import CheckpointStore
store = CheckpointStore(Storage(sys.argv[1]), keep=3)
for step in range(1, 10_000):
    state = {"step": step, "weight": torch.full((1500, 1500), float(step))}
    print("saving", flush=True)
    store.save(step, state)
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_writer_killed_while_it_saves_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    hits = 0
    for attempt in range(12):
        folder = str(tmp_path / f"checkpoints-{attempt}")
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert [writer.stdout.readline() for _ in range(3)] == ["saving\n", "1\n", "saving\n"]
        time.sleep(0.002 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        told = ["1", "saving", *writer.stdout.read().split()]
        saved = int([word for word in told if word != "saving"][-1])
        hits += told[-1] == "saving"
        step = CheckpointStore(Storage(folder)).latest()
        assert step in (saved, saved + 1), "what was said to be saved is there"
        weight = CheckpointStore(Storage(folder)).load(step)["weight"]
        assert torch.equal(weight, torch.full((1500, 1500), float(step)))
        if hits == 3:
            return
    pytest.fail(f"only {hits} of 12 kills hit a save")


_COME_AND_GO = """
import os, sys, time
end = time.monotonic() + 2
while time.monotonic() < end:
    os.mkdir(sys.argv[1])
    os.rmdir(sys.argv[1])
"""


def test_a_store_may_be_read_at_the_very_moment_it_is_made(store: CheckpointStore) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _COME_AND_GO, store.storage.root])
    while writer.poll() is None:
        assert store.latest() is None
    assert writer.returncode == 0


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/ovos-should-not-exist",)


def test_a_malicious_checkpoint_is_not_executed(store: CheckpointStore) -> None:
    store.save(10, {"step": 10, "payload": _Payload()})
    with pytest.raises(CheckpointError, match=r"step-00000010 was refused"):
        store.load(10)
    assert not Path("/tmp/ovos-should-not-exist").exists()


def test_a_checkpoint_that_unpacks_to_far_more_than_it_is_is_refused(store: CheckpointStore) -> None:
    store.save(10, state(10) | {"much": torch.zeros(2**22)})
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(store.storage.read("step-00000010", "state.pt"))) as stored,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in stored.infolist():
            archive.writestr(entry.filename, stored.read(entry))
    assert len(packed.getvalue()) < 2**17
    store.storage.write(packed.getvalue(), "step-00000010", "state.pt")
    store.storage.write(_marker(10, packed.getvalue()), "step-00000010", "complete.json")
    with pytest.raises(CheckpointError, match=r"step-00000010 was refused"):
        store.load(10)


def test_a_run_folder_belongs_to_one_configuration(tmp_path: Path) -> None:
    config = override(ExperimentConfig(), {"storage": str(tmp_path), "name": "a"})
    folder = RunFolder.of(config)
    folder.claim(config)
    folder.claim(override(config, {"train.log_every": 1, "train.num_workers": 2}))
    with pytest.raises(CheckpointError, match=r"method.backward 2-step there, T-step here"):
        folder.claim(override(config, {"method.backward": "T-step"}))
    assert folder.result() is None
    folder.finish({"scores": {"jf": 50.0}})
    assert folder.result() == {"scores": {"jf": 50.0}}
    assert folder.config() == config
