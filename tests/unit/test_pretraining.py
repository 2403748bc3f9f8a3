"""Pretraining as a stage: named by its digest, computed once, shared, and a part of every result that it led to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ovos_ray import networks
from ovos_ray.config import DataConfig, ExperimentConfig, NetworkConfig, PretrainConfig, override
from ovos_ray.config.digest import digest
from ovos_ray.config.recipes import make
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import ConfigError
from ovos_ray.io import exclusive
from ovos_ray.packing.pack import pack
from ovos_ray.run.initial import initial_network
from ovos_ray.run.labels import count_labels
from ovos_ray.run.pretraining import pin, pretraining_folder, pretraining_stage
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace
from ovos_ray.train.run_folder import RunFolder

RECIPE = """
from ovos_ray.config import DataConfig, ExperimentConfig, LossConfig, MethodConfig, NetworkConfig, OptimizerConfig
from ovos_ray.config import TrainConfig

def stage() -> ExperimentConfig:
    '''Stage 0.'''
    return ExperimentConfig(
        name="stage",
        network=NetworkConfig(name="cutie-tiny"),
        data=DataConfig(
            shards=("shards/static",), source="static", clip_length=3, max_objects=1, batch_size=2, crop_size=48
        ),
        method=MethodConfig(name="supervised", loss=LossConfig(cross_entropy="plain")),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(steps=6, checkpoint_every=2, log_every=2, num_workers=3),
    )
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a recipe module of its own, as a user has."""
    (tmp_path / "my_stages.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_stages", None)


def config_of(**changes: Any) -> ExperimentConfig:
    base = ExperimentConfig(
        name="main",
        network=NetworkConfig(name="xmem-tiny"),
        data=DataConfig(shards=("shards/videos",), clip_length=4, batch_size=2, crop_size=48),
        pretrain=PretrainConfig(recipe="my_stages.stage"),
        tracking_uri="",
    )
    return override(base, changes)


def test_a_stage_has_the_network_and_the_workers_of_its_run_and_the_rest_of_its_recipe(here: Path) -> None:
    config = pin(config_of(seed=7, storage="runs/study"))
    stage = pretraining_stage(config, here)
    assert stage is not None
    assert stage.network.name == "xmem-tiny"
    assert (stage.train.num_workers, stage.train.steps, stage.seed) == (1, 6, 0)
    assert stage.data.shards == (str(here / "shards/static"),)
    assert RunFolder.of(stage).storage.folder == str(here / "runs/study/pretraining" / digest(stage))


def test_the_digest_of_a_run_has_that_of_its_pretraining_in_it() -> None:
    config = config_of()
    pinned = pin(config)
    assert pinned.pretrain is not None
    assert pinned.pretrain.digest == digest(pretraining_stage(pinned) or config)
    longer = pin(override(config, {"pretrain.overrides": "train.steps=9,data.batch_size=4"}))
    stage = pretraining_stage(longer)
    assert stage is not None
    assert (stage.train.steps, stage.data.batch_size) == (9, 4)
    without = override(config, {"pretrain": None})
    assert len({digest(pinned), digest(longer), digest(without)}) == 3
    # Where and how fast it is computed, and how its recipe is spelled, change nothing.
    same = {"pretrain.overrides": "train.steps=6", "pretrain.storage": "elsewhere", "train.num_workers": 2}
    assert digest(pin(override(config, same))) == digest(pinned)
    assert pin(pinned) == pinned


def test_a_recipe_that_changed_in_between_is_refused() -> None:
    pinned = override(pin(config_of()), {"pretrain.digest": "0123456789ab"})
    with pytest.raises(ConfigError, match=r"prepared with 0123456789ab"):
        pretraining_stage(pinned)


def test_weights_in_a_file_take_the_place_of_pretraining() -> None:
    assert pin(config_of(**{"network.init": "cutie-base.pth"})).pretrain is None
    assert pin(config_of(**{"network.init": "imagenet"})).pretrain is not None


def test_the_trials_of_all_studies_share_one_folder_and_one_stage_per_digest() -> None:
    axes = {"pretrain": (None, PretrainConfig(recipe="my_stages.stage")), "method.backward": ("T-step", "2-step")}
    space = SearchSpace(name="s", trainable="none", axes=axes, seeds=(0, 1))
    trials, _ = expand(space, config_of())
    stages = [stage for trial in trials if (stage := pretraining_stage(trial.config)) is not None]
    assert (len(trials), len(stages)) == (8, 4)
    assert len({digest(stage) for stage in stages}) == 1
    assert {stage.storage for stage in stages} == {"runs/pretraining"}


def test_a_study_runs_each_stage_once_and_no_trial_whose_stage_failed(here: Path) -> None:
    from ovos_ray.study.pretraining import distinct_pretrainings, without_failed_pretraining
    from ovos_ray.study.run_study import requests_of

    axes = {"pretrain": (None, PretrainConfig(recipe="my_stages.stage"))}
    space = SearchSpace(name="s", trainable="none", axes=axes, seeds=(0, 1, 2))
    trials, _ = expand(space, config_of(storage=str(here / "runs")))
    records: list[dict[str, Any]] = []
    requests = requests_of(space, trials, tags={"ovos.git_commit": "1a"}, watcher=records.append)
    assert len(requests) == 6
    (stage,) = distinct_pretrainings(requests).values()
    assert (stage.experiment, stage.shared, stage.tags["ovos.kind"]) == ("pretraining", True, "pretraining")
    assert stage.config.data.shards == (str(here / "shards/static"),)
    without = without_failed_pretraining(requests)
    assert len(without) == 3
    assert all(request.pretraining is None for request in without.values())
    assert [record["event"] for record in records] == [f"not run: its pretraining {stage.config.name} has failed"] * 3
    RunFolder.of(stage.config).finish({})
    assert not distinct_pretrainings(requests)
    assert len(without_failed_pretraining(requests)) == 6


@pytest.mark.parametrize("single_object", [True, False])
def test_a_run_starts_from_the_weights_of_its_pretraining(single_object: bool) -> None:
    config = pin(config_of())
    weights = {name: value.contiguous() for name, value in networks.build("xmem-tiny", seed=5).state_dict().items()}
    first = "value_encoder.conv1.weight"
    if single_object:  # as official stage-0 files are: without the mask of the other objects
        weights[first] = weights[first][:, :-1].contiguous()
    pretraining_folder(config).storage.write(safetensors.torch.save(weights), "network.safetensors")
    started = initial_network(config).state_dict()
    untrained = networks.build("xmem-tiny", seed=config.seed).state_dict()
    for name, value in weights.items():
        assert torch.equal(started[name][:, : value.shape[1]] if name == first else started[name], value)
    assert any(not torch.equal(untrained[name], started[name]) for name in untrained)


def make_shards(root: Path) -> None:
    """Packs three videos with a label each as `shards/videos`, two with all labels as `shards/static`."""
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=5)
    source = open_dataset(synthetic.generate(root / "dataset", seed=3, num_videos={"train": 3, "val": 2}, config=small))
    pack(source, root / "shards/videos", labels="first", split="train")
    pack(source, root / "shards/static", labels="all", split="val")


def test_labels_of_pretraining_and_validation_are_counted_apart(here: Path) -> None:
    make_shards(here)
    config = override(config_of(), {"validation.root": str(here / "dataset"), "validation.num_videos": 1})
    config = pin(config)
    labels = count_labels(config, pretraining_stage(config))
    assert labels.as_dict() == {
        "training": 3,
        "training_frames": 15,
        "validation": 5,
        "validation_frames": 5,
        "pretraining": 10,
    }
    assert labels.percent == pytest.approx(100 * (3 + 5) / (15 + 5))
    assert str(labels).startswith("3 of 15 frames labelled (20.0 %); validation uses 5 more, together 40.0 %; ")
    alone = count_labels(override(config, {"validation.root": None, "pretrain": None}))
    assert (alone.percent, str(alone)) == (20.0, "3 of 15 frames labelled (20.0 %)")


def test_a_dry_run_prices_the_stage_and_counts_its_labels(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ovos_ray.cli.train import train

    make_shards(here)
    (here / "my_runs.py").write_text(
        "from ovos_ray.config import *\n"
        "def my_run() -> ExperimentConfig:\n"
        "    data = DataConfig(shards=('shards/videos',), batch_size=2, crop_size=48)\n"
        "    return ExperimentConfig(name='mine', data=data, pretrain=PretrainConfig(recipe='my_stages.stage'))\n"
    )
    train("my_runs.my_run", dry_run=True)
    printed = " ".join(capsys.readouterr().out.split())
    stage = pretraining_stage(pin(make("my_runs.my_run", ExperimentConfig)))
    assert stage is not None
    named = f"pretraining {digest(stage)} (my_stages.stage)"
    assert f"label budget of {named}: 10 of 10 frames labelled" in printed
    assert "6 steps x 2 clips" in printed
    assert f"estimate for {named}: about" in printed
    assert "estimate for mine: about" in printed
    assert "3 of 15 frames labelled (20.0 %); pretraining uses 10 labelled images" in printed
    assert not (here / "runs").exists()


HOLDER = """
import sys, time
from ovos_ray.io import exclusive
from ovos_ray.config.recipes import make
with exclusive(sys.argv[1]):
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    told: list[str] = []
    held_until = 0.0

    def kill(who: str) -> None:
        nonlocal held_until
        told.append(who)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        held_until = time.monotonic()

    with exclusive(path, kill, poll_s=0.05):
        assert time.monotonic() >= held_until > 0, "entered while the other was inside"
        inside: list[str] = []
        with pytest.raises(TimeoutError), exclusive(path, lambda _: _give_up(), poll_s=0.05):
            inside.append("second")
        assert not inside
    with exclusive(path, lambda _: _give_up()):
        pass
    assert told == [f"process {holder.pid} on {os.uname().nodename}"]


def _give_up() -> None:
    raise TimeoutError
