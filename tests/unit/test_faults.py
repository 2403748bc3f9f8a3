"""Runs that are killed, and runs on two processes, without Ray: fast, so that many faults can be tried."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from gradients import DTYPES, gradients
from runs import PROCESSES, Weights, config_of, local_stream, run_ranks, same, train_alone
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest
from ovos_ray.train.checkpoint import CheckpointStore
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.step import TrainingModule, train_step

pytestmark = pytest.mark.slow


def train_and_tell(config: ExperimentConfig, told: Connection) -> None:
    def tell(record: dict[str, Any]) -> None:
        if "train/loss" in record:
            told.send(record["step"])

    train_alone(config, watcher=tell)


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.nightly)])
def test_kills_at_random_steps_change_nothing(kills: int, shards: Path, tmp_path: Path) -> None:
    changes = {
        "train.steps": 6 * kills + 6,  # each after at most six steps, and some left
        "train.checkpoint_every": 3,
        "train.log_every": 1,
        "optimizer.decay_steps": (9,),
        "data.batch_size": 2,
        "data.crop_size": 32,
    }
    undisturbed = train_alone(config_of(shards, tmp_path, name="undisturbed", **changes))
    config = config_of(shards, tmp_path, name="killed", **changes)
    store, rng = RunFolder.of(config).checkpoints(), random.Random(0)
    killed_at = []
    for _ in range(kills):
        start = store.latest() or 0
        assert not killed_at or killed_at[-1] - start < 3 + 2, "more than a checkpoint's interval was lost"
        target, delay_s = start + rng.randint(1, 5), rng.random() * 0.1
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=train_and_tell, args=(config, sender))
        process.start()
        sender.close()
        first = step = receiver.recv()
        assert first == start + 1, "it goes on where the last complete checkpoint is"
        while step < target:
            step = receiver.recv()
        time.sleep(delay_s)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        killed_at.append(step)
    assert len(set(killed_at)) > kills / 2
    assert same(train_alone(config), undisturbed)
    assert not same(train_alone(config_of(shards, tmp_path, name="other", seed=1, **changes)), undisturbed)


def join_group(rank: int, workers: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers)


def whole_run(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    join_group(rank, workers, folder)
    stream = local_stream(config, rank, workers)
    network = train_run(RunRequest(config, "none", "none"), stream, rank=rank, world_size=workers)
    torch.save(network.state_dict(), folder / f"{rank}.pt")


def run_that_reads_once(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    join_group(rank, workers, folder)
    stream = local_stream(config, rank, workers)
    assert stream.start_step == 6
    if rank:
        CheckpointStore._read = None  # type: ignore[assignment]  # called, it is an error
    network = train_run(RunRequest(config, "none", "none"), stream, rank=rank, world_size=workers)
    torch.save(network.state_dict(), folder / f"{rank}.pt")


def test_ranks_go_on_from_a_checkpoint_that_one_of_them_reads(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, **{"train.num_workers": 2})
    run_ranks(whole_run, config, tmp_path / "ranks", workers=2)
    run = RunFolder.of(config).storage
    run.remove("result.json")
    run.remove_folder("checkpoints/step-00000008")
    run_ranks(run_that_reads_once, config, tmp_path / "again", workers=2)
    for rank in range(2):
        first, again = (torch.load(tmp_path / at / f"{rank}.pt", weights_only=True) for at in ("ranks", "again"))
        assert same(first, again)


@pytest.mark.parametrize("share", [(), ((0.0, 1.0), (0.5, 0.0))])
def test_forced_one_step_trains_on_two_workers_without_hanging(
    share: tuple[tuple[float, float], ...], shards: Path, tmp_path: Path
) -> None:
    # The sensory update has no gradient then, and a rank that waits for it would wait for ever.
    config = config_of(
        shards,
        tmp_path,
        **{
            "method.backward": "1-step",
            "method.allow_untrained_sensory": True,
            "train.num_workers": 2,
            "train.steps": 4,
            "data.static_share": share,
        },
    )
    run_ranks(whole_run, config, tmp_path / "ranks", workers=2)
    zero, one = (torch.load(tmp_path / "ranks" / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert same(zero, one)
    start = networks.build("xmem-tiny", seed=config.seed).state_dict()
    moved = {name for name in zero if not torch.equal(zero[name], start[name])}
    # Static steps go through all of the network.
    untrained = {name for name in zero if name.startswith("decoder.hidden_update.") and not share}
    assert untrained or share
    assert moved == set(zero) - untrained


def gradients_of_a_rank(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    join_group(rank, workers, folder)
    batch = next(local_stream(config, rank, workers).batches())
    found = {str(dtype): gradients(config, batch, dtype, together=True) for dtype in DTYPES}
    torch.save(found, folder / f"{rank}.pt")


def test_gradients_of_one_and_two_workers_agree(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, **{"train.channels_last": False})
    run_ranks(gradients_of_a_rank, config, tmp_path / "ranks", workers=2)
    of_two = torch.load(tmp_path / "ranks" / "0.pt", weights_only=True)
    for dtype, rtol in DTYPES.items():
        one = gradients(config, next(local_stream(config).batches()), dtype, together=False)
        two = of_two[str(dtype)]
        assert one.keys() == two.keys()
        largest = max(g.abs().max() for g in one.values())
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=rtol, atol=rtol * float(largest), msg=name)
        assert largest > 0


def some_steps(config: ExperimentConfig, world_size: int = 1, rank: int = 0) -> Weights:
    """The weights after a few steps in float64."""
    network = networks.build(config.network.name, seed=config.seed).double()
    training = TrainingModule(network, config)
    module: nn.Module = training
    if world_size > 1:
        module = DistributedDataParallel(training, find_unused_parameters=training.has_unused)
    optimizer = build_optimizer(network, config.optimizer, torch.device("cpu"))
    for step, batch in enumerate(local_stream(config, rank, world_size).batches()):
        train_step(module, batch, optimizer, config, step)
    return network.state_dict()


def some_steps_of_a_rank(rank: int, workers: int, folder: Path, config: ExperimentConfig) -> None:
    join_group(rank, workers, folder)
    torch.save(some_steps(config, workers, rank), folder / f"{rank}.pt")


@pytest.mark.parametrize(
    ("name", "workers", "changes"),
    [
        ("stcn-tiny", 2, {}),
        ("xmem-tiny", 2, {"data.static_share": ((0.0, 0.5),)}),
        ("cutie-tiny", 2, {"method.loss.cross_entropy": "points", "method.loss.num_points": 200}),
        ("xmem-tiny", 3, {}),  # three share the 4 clips as 1, 1 and 2
    ],
)
def test_workers_make_the_steps_of_one(
    name: str, workers: int, changes: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    config = config_of(shards, tmp_path, **{"network.name": name, "train.steps": 2, **changes})
    alone = some_steps(config)
    run_ranks(some_steps_of_a_rank, config, tmp_path / "ranks", workers)
    together = torch.load(tmp_path / "ranks" / "0.pt", weights_only=True)
    other = some_steps(override(config, {"seed": 1}))
    start = networks.build(name, seed=config.seed).double().state_dict()
    for key in alone:
        torch.testing.assert_close(together[key], alone[key], rtol=1e-8, atol=1e-9, msg=key)
    furthest = max(float((alone[key] - start[key]).abs().max()) for key in alone)
    assert furthest > 1e-3, "2 steps of 1e-3 have moved something"
    assert any(not torch.allclose(other[key], alone[key], rtol=1e-4) for key in alone)
