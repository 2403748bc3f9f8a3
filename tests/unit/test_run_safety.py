"""What a run does on a full disk, with a damaged picture, or when its loss is no number; what its result is worth."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from runs import config_of, local_stream, run_ranks, same, train_alone
from tiny_study import make_dataset

from ovos_ray import storage
from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ConfigError, DivergedError, OvosError, ResourceError, StorageError, WeightsError
from ovos_ray.run.here import fit_here
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest
from ovos_ray.track.spool import find_spools
from ovos_ray.train.load_network import load_network
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.step import TrainingModule


def small(shards: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    few = {"train.steps": 4, "data.batch_size": 2, "data.crop_size": 32, "network.name": "stcn-tiny"}
    return config_of(shards, storage, **{**few, **changes})


def test_a_result_vouches_for_its_weights(shards: Path, tmp_path: Path) -> None:
    config = small(shards, tmp_path, **{"train.ema_decay": 0.9})
    train_alone(config)
    folder = Path(RunFolder.of(config).storage.root)
    load_network(folder)
    for name in ("network.safetensors", "network_ema.safetensors"):
        load_network(folder / name)
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(WeightsError, match="is not what its run wrote"):
            load_network(folder / name)


def test_a_run_is_refused_where_three_checkpoints_have_no_room(shards: Path, small_disk: Path) -> None:
    config = small(shards, small_disk)
    with pytest.raises(ResourceError, match=r"0\.1 MiB free, 3 checkpoints of stcn-tiny take \d") as caught:
        fit_here(RunRequest(config, "none", "run"))
    assert "storage=" in str(caught.value)
    assert not list(small_disk.rglob("step-*")), "before anything was computed"


def test_a_checkpoint_without_room_is_tried_again_and_the_last_one_is_a_named_error(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.train.checkpoint import CheckpointStore

    full_from, real, events = [0], CheckpointStore.save, list[str]()

    def save(self: CheckpointStore, step: int, *args: Any, **more: Any) -> str:
        if step in full_from:
            raise OSError(28, "No space left on device")
        return real(self, step, *args, **more)

    monkeypatch.setattr(CheckpointStore, "save", save)
    full_from[:] = [2]
    config = small(shards, tmp_path)
    train_alone(config, watcher=lambda record: events.append(record.get("event", "")))
    assert any("checkpoint not written" in event and "No space left" in event for event in events)
    assert RunFolder.of(config).checkpoints().latest() == 4
    full_from[:] = [4]
    config = small(shards, tmp_path, name="last")
    with pytest.raises(ResourceError, match=r"checkpoint of step 4 could not be written.*No space left"):
        train_alone(config)
    assert RunFolder.of(config).checkpoints().latest() == 2


def test_a_storage_that_is_away_at_the_last_checkpoint_is_no_full_one_and_the_run_goes_on_later(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.on_ray.causes import lasting_cause

    away, real = [True], storage.atomic_path

    def reset(path: str) -> Any:
        if away[0] and "step-00000004" in path:
            raise OSError(errno.ECONNRESET, "Connection reset by peer")
        return real(path)

    monkeypatch.setattr(storage, "atomic_path", reset)
    monkeypatch.setattr(storage, "PATIENCE_S", 0.1)
    config = small(shards, tmp_path)
    with pytest.raises(StorageError, match="the storage cannot be reached") as caught:
        train_alone(config)
    assert "make room" not in str(caught.value)
    assert lasting_cause(caught.value) is None, "on a cluster it is tried again"
    away[0] = False
    whole = train_alone(small(shards, tmp_path, name="whole"))
    assert same(train_alone(config), whole)


def test_one_damaged_picture_ends_no_training_at_a_snapshot(shards: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path)
    picture = sorted((tmp_path / "dataset").rglob("val-000/*.jpg"))[1]
    picture.write_bytes(picture.read_bytes()[:50])
    scored = {"evaluation.root": str(tmp_path / "dataset"), "evaluation.split": "val"}
    config = small(shards, tmp_path, **{"train.snapshot_every": 2, **scored})
    events: list[str] = []
    # What is to be scored must be readable, and that is said, once everything is trained and kept.
    with pytest.raises(OvosError, match=picture.name):
        train_alone(config, watcher=lambda record: events.append(record.get("event", "")))
    assert sum("snapshot not written" in event for event in events) == 3
    assert RunFolder.of(config).checkpoints().latest() == 4


def test_credentials_in_the_address_of_the_store_reach_no_file(shards: Path, tmp_path: Path) -> None:
    config = small(shards, tmp_path / "runs", tracking_uri="http://user:s3cret@host:5000")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        fit_here(RunRequest(config, "none", "run"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


# ---------------------------------------------------------------- a loss that is not a number


def poisoned(step_at: int, rank_at: int, rank: int) -> Any:
    """`TrainingModule.forward` whose loss is not a number at one step on one rank."""
    real = TrainingModule.forward

    def forward(self: TrainingModule, batch: Any, step: int) -> Any:
        loss, scalars = real(self, batch, step)
        return (loss * float("nan") if (step, rank) == (step_at, rank_at) else loss), scalars

    return forward


def rank_with_poison(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    TrainingModule.forward = poisoned(2, 1, rank)  # type: ignore[method-assign]
    stream = local_stream(config, rank, workers)
    network = train_run(RunRequest(config, "none", "none"), stream, rank=rank, world_size=workers)
    torch.save(network.state_dict(), folder / f"{rank}.pt")


def artifact_of(config: ExperimentConfig, name: str) -> str:
    (spool,), _ = find_spools(Path(RunFolder.of(config).storage.root))
    records = [r for r in spool.records() if r.kind == "artifact" and r.data["name"] == name]
    return spool.kept(records[-1].data["place"]).read_text()


@pytest.mark.slow
def test_a_loss_that_is_no_number_on_one_of_two_ranks_moves_neither_and_is_listed(shards: Path, tmp_path: Path) -> None:
    away = "http://127.0.0.1:9"  # nobody listens: what was logged stays in the spool
    config = small(shards, tmp_path, **{"train.num_workers": 2, "train.steps": 3, "tracking_uri": away})
    run_ranks(rank_with_poison, config, tmp_path / "ranks", workers=2)
    zero, one = (torch.load(tmp_path / "ranks" / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert same(zero, one)
    before = RunFolder.of(config).checkpoints().load(2)["network"]
    assert same(zero, before), "the step whose loss was no number, on the other rank, was made on none"
    assert artifact_of(config, "skipped_steps.csv") == "step,first_position,last_position\n2,4,5\n"


def test_too_many_in_a_row_end_the_run_and_are_listed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = TrainingModule.forward

    def forward(self: TrainingModule, batch: Any, step: int) -> Any:
        loss, scalars = real(self, batch, step)
        return loss * float("nan"), scalars

    monkeypatch.setattr(TrainingModule, "forward", forward)
    caplog.set_level(logging.WARNING)
    config = small(shards, tmp_path, **{"train.max_nonfinite_steps": 2, "tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(DivergedError, match="2 steps in a row"):
        train_alone(config)
    assert artifact_of(config, "skipped_steps.csv").splitlines()[1:] == ["0,0,1", "1,2,3"]
    assert RunFolder.of(config).result() is None


def test_every_checkpoint_holds_tensors_and_plain_values_only(shards: Path, tmp_path: Path) -> None:
    """No NumPy scalars, no objects: `weights_only=True` loads it without an exception made for it."""
    config = small(shards, tmp_path)
    train_alone(config)
    state = torch.load(RunFolder.of(config).checkpoints().storage.path("step-00000004", "state.pt"), weights_only=True)

    def check(value: Any, where: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                assert type(key) in (str, int), where
                check(inner, f"{where}.{key}")
        elif isinstance(value, list | tuple):
            for inner in value:
                check(inner, where)
        else:
            assert type(value) in (int, float, str, bool, type(None)) or isinstance(value, torch.Tensor), where

    check(dict(state), "state")
