"""Checkpoints that are written beside the training: what they hold, and what becomes of them when something fails."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config_of, make_shards, same, train_alone

from ovos_ray.config import ExperimentConfig
from ovos_ray.run.request import RunRequest
from ovos_ray.run.run_log import RunLog
from ovos_ray.run.state import RunState
from ovos_ray.storage import Storage
from ovos_ray.train.checkpoint import CheckpointStore
from ovos_ray.train.checkpoint_writer import CheckpointWriter
from ovos_ray.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data"))


def small(shards: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    few = {"train.steps": 6, "data.batch_size": 2, "data.crop_size": 32, "network.name": "stcn-tiny"}
    return config_of(shards, storage, **{**few, "train.checkpoint_every": 100, **changes})


class Slow(CheckpointStore):
    """Writes when it is let, and fails where it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Storage(str(folder)))
        self.let, self.error = threading.Event(), None

    def save(self, *args: Any, **more: Any) -> str:
        assert self.let.wait(30)
        if self.error is not None:
            raise self.error
        return super().save(*args, **more)


def test_a_checkpoint_holds_the_state_of_its_step_whatever_changes_while_it_is_written(tmp_path: Path) -> None:
    store = Slow(tmp_path)
    writer = CheckpointWriter(store)
    weight, moments = torch.zeros(3), [torch.zeros(2)]
    assert not writer.start(1, {"weight": weight, "moments": moments, "step": 1}), "too small to go on beside it"
    assert writer.busy
    weight.add_(1)
    moments[0].add_(1)
    moments.append(torch.ones(1))
    store.let.set()
    # Waits for the first: one is under way at most.
    assert writer.start(2, {"weight": weight, "large": [torch.zeros(2**23 + 1)]})
    assert store.latest() is not None
    writer.close()
    assert torch.equal(store.load(1)["weight"], torch.zeros(3))
    assert [part.tolist() for part in store.load(1)["moments"]] == [[0, 0]]
    assert torch.equal(store.load(2)["weight"], torch.ones(3))


def test_what_went_wrong_is_raised_once_where_it_is_waited_for(tmp_path: Path) -> None:
    store = Slow(tmp_path)
    writer = CheckpointWriter(store)
    store.let.set()
    store.error = OSError("no space")
    writer.start(1, {})
    with pytest.raises(OSError, match="no space"):
        writer.start(2, {})
    store.error = None
    writer.start(3, {})
    writer.wait()
    assert store.latest() == 3
    writer.close()


def test_a_defect_in_writing_ends_the_run(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise TypeError("a defect of the writer")

    monkeypatch.setattr(CheckpointStore, "save", broken)
    with pytest.raises(TypeError, match="a defect of the writer"):
        train_alone(small(shards, tmp_path, **{"train.checkpoint_every": 2}))


def test_the_newest_by_its_marker_needs_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(Storage(str(tmp_path)))
    assert store.newest_marked() is None
    for step in (10, 20):
        store.save(step, {"step": step})
    (tmp_path / "step-00000030").mkdir()
    read: list[str] = []
    real = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, *parts: (read.append(parts[-1]), real(self, *parts))[1])
    assert store.newest_marked() == 20
    assert read == []
    found = store.load_latest()
    assert found is not None
    assert (found[0], found[1]["step"]) == (20, 20)
    assert sorted(read) == ["complete.json", "state.pt"], "checked and loaded in one go"


def test_checkpoints_come_by_the_clock_and_resume_bit_for_bit(shards: Path, tmp_path: Path) -> None:
    whole = train_alone(small(shards, tmp_path, name="whole"))
    assert RunFolder.of(small(shards, tmp_path, name="whole")).checkpoints().storage.folders() == ["step-00000006"]
    config = small(shards, tmp_path, name="clock", **{"train.checkpoint_every_s": 1e-9, "train.keep_checkpoints": 99})
    train_alone(config)
    store = RunFolder.of(config).checkpoints()
    assert store.storage.folders() == [f"step-{step:08d}" for step in range(1, 7)]
    RunFolder.of(config).storage.remove("result.json")
    for step in (4, 5, 6):
        store.storage.remove_folder(f"step-{step:08d}")
    assert same(train_alone(config), whole)


def test_a_warning_is_heeded_at_once_and_again(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, told = small(shards, tmp_path), list[str]()
    request = RunRequest(config, "none", "none", watcher=lambda record: told.append(record["event"]))
    log = RunLog(request, rank=0, start_step=0, device=torch.device("cpu"))
    now = [0.0]
    monkeypatch.setattr("ovos_ray.run.run_log.time.monotonic", lambda: now[0])
    state = RunState.at(config, 0, torch.device("cpu"))
    log.checkpoint(state, 1, must_succeed=True)
    due = []
    for now[0], warning in ((5, ""), (6, "taken away"), (7, "taken away"), (99, "taken away"), (599, ""), (601, "")):
        due.append(log.checkpoint_is_due(2, warning))
    assert due == [False, True, False, True, False, True]
    assert told == ["taken away; a checkpoint is written now and every few seconds"]
    other = RunLog(request, rank=1, start_step=0, device=torch.device("cpu"))
    assert not other.checkpoint_is_due(2, "taken away")
    log.close()


def test_a_finished_run_removes_its_checkpoints_where_it_is_told_to(shards: Path, tmp_path: Path) -> None:
    config = small(shards, tmp_path, **{"train.keep_finished": False})
    train_alone(config)
    folder = RunFolder.of(config)
    assert folder.checkpoints().storage.folders() == []
    assert folder.result() is not None
    assert folder.storage.exists("network.safetensors")
