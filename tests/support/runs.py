"""Small runs that tests start, disturb and compare: a dataset, a configuration, and training without Ray."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
from torch import Tensor

from ovos_ray.config import (
    DataConfig,
    ExperimentConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    override,
)
from ovos_ray.data.clips.batches import LocalStream
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.run import here
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resume import resume_step
from ovos_ray.train.run_folder import RunFolder

Weights = dict[str, Tensor]

# Processes are forked from one that has imported everything and computed nothing, so that each starts in no time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ovos_ray.study.here", "ovos_ray.data.folders.synthetic"])


def make_shards(root: Path) -> Path:
    """Puts six short synthetic videos with one label each into `root/shards`, and what they are of beside it."""
    return copy_of_made(root, num_train=6, num_frames=8)


def copy_of_made(root: Path, num_train: int, num_frames: int, num_val: int = 1) -> Path:
    """Copies `dataset` and `shards`, which are made once a process: most tests damage what they have."""
    made, index = _made(num_train, num_frames, num_val), root / "shards" / "index.json"
    shutil.copytree(made, root, dirs_exist_ok=True)
    index.write_text(index.read_text().replace(str(made), str(root)))  # which says what it was packed from
    return index.parent


@functools.cache
def _made(num_train: int, num_frames: int, num_val: int) -> Path:
    root = Path(tempfile.mkdtemp(prefix="ovos-tests-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=num_frames)
    synthetic.generate(root / "dataset", seed=3, num_videos={"train": num_train, "val": num_val}, config=small)
    pack(open_dataset(root / "dataset"), root / "shards", labels="first", split="train")
    return root


def config_of(shards: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    """A run of 8 steps in which D changes half way."""
    config = ExperimentConfig(
        name="run",
        network=NetworkConfig(name="xmem-tiny"),
        data=DataConfig(
            shards=(str(shards),),
            clip_length=4,
            max_skip=((0.0, 1), (0.5, 3)),
            batch_size=4,
            crop_size=48,
            max_objects=2,
        ),
        method=MethodConfig(loss=LossConfig(cross_entropy="plain")),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(steps=8, cpus_per_worker=0.5, num_threads=1, checkpoint_every=2, log_every=2),
        storage=str(storage),
        tracking_uri="",
    )
    return override(config, changes)


def local_stream(config: ExperimentConfig, rank: int = 0, world_size: int = 1) -> LocalStream:
    """The batches of one rank, from the newest checkpoint on."""
    return dataclasses.replace(here.local_stream(config, resume_step(config)), rank=rank, world_size=world_size)


def train_alone(
    config: ExperimentConfig,
    stream: Any = None,
    watcher: Callable[[dict[str, Any]], None] | None = None,
) -> Weights:
    """Trains in this process, without Ray, from the newest checkpoint on; returns the resulting weights."""
    try:
        train_run(RunRequest(config, "none", config.name, watcher=watcher), stream or local_stream(config))
    finally:
        torch.use_deterministic_algorithms(False)
    return result_of(config)


def result_of(config: ExperimentConfig) -> Weights:
    """The weights that a finished run has left."""
    weights: Weights = safetensors.torch.load(RunFolder.of(config).storage.read("network.safetensors"))
    return weights


def same(a: Weights, b: Weights) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run_ranks(target: Any, config: ExperimentConfig, folder: Path, workers: int, timeout_s: float = 120.0) -> None:
    """Runs ranks under gloo to the end, or fails when they hang."""
    folder.mkdir(exist_ok=True)
    ranks = [PROCESSES.Process(target=target, args=(rank, workers, folder, config)) for rank in range(workers)]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + timeout_s
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
    hanging = [process for process in ranks if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, "the ranks wait for each other"
    assert [process.exitcode for process in ranks] == workers * [0]


def training_workers(driver: int) -> list[psutil.Process]:
    """The processes that train on the Ray cluster that a process has started; those of others are left alone."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            # A worker of several, the task of a plain run of one, the actor of a Tune trial of one.
            if " ".join(process.cmdline()).startswith(("ray::RayTrainWorker", "ray::train ", "ray::ImplicitFunc")):
                found.append(process)
        except psutil.Error:
            continue
    return found
