"""Faults under Ray: workers that are killed, once, often or always, and rows that cannot be read."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gates import Gates, kill_at
from runs import Weights, config_of, local_stream, result_of, same, train_alone
from tracked import history, the_run

from ovos_ray.config import ExperimentConfig
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.run.request import RunRequest
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.train.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def fit(config: ExperimentConfig, gates: Gates | None = None) -> Weights:
    from ovos_ray.on_ray.fit import fit as fit_request

    fit_request(RunRequest(config, "faults", config.name, watcher=gates))
    return result_of(config)


@pytest.mark.nightly
def test_ten_kills_in_one_run_change_neither_weights_nor_history(shards: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    changes = {"train.steps": 40, "train.log_every": 1, "train.checkpoint_every": 3, "data.batch_size": 2}
    changes["train.max_failures"] = 10
    undisturbed = train_alone(config_of(shards, tmp_path, name="undisturbed", **changes))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = config_of(shards, tmp_path, name="killed", tracking_uri=uri, **changes)
    gates = Gates(tmp_path / "gates", tuple(sorted(random.Random(1).sample(range(1, 40), 10))))
    killer = kill_at(gates, config.name)
    weights = fit(config, gates)
    killer.join(60)
    assert not killer.is_alive(), "it was killed fewer than ten times"
    assert same(weights, undisturbed)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("faults")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name in ("train/loss", "train/iou"):
        assert sorted(p.step for p in client.get_metric_history(run.info.run_id, name)) == list(range(1, 41))


def test_a_trial_survives_three_kills_is_given_up_with_advice_at_the_fourth_and_finished_by_the_same_study(
    shards: Path, tmp_path: Path, store: str, client: Any
) -> None:
    import ray

    from ovos_ray.on_ray.session import _BoardWatcher
    from ovos_ray.on_ray.study import run_sweep
    from ovos_ray.run.progress import ProgressBoard

    changes = {"train.steps": 20, "train.log_every": 1, "train.checkpoint_every": 3, "train.max_failures": 3}
    undisturbed = train_alone(config_of(shards, tmp_path, name="undisturbed", **changes))
    config = config_of(shards, tmp_path, name="killed", tracking_uri=store, **changes)
    space, trials = SearchSpace(name="kills", trainable="none", seeds=(0,)), [Trial("killed", {}, config)]
    board = ray.remote(ProgressBoard).options(num_cpus=0).remote()
    gates = Gates(tmp_path / "gates", (4, 8, 11, 17), then=_BoardWatcher(board))
    killer = kill_at(gates, config.name)
    result = run_sweep(space, trials, watcher=gates)
    killer.join(60)
    assert not killer.is_alive()
    (failure,) = result.failed
    assert re.search(r"killed from outside 4 times, .*memory ran out: with 4 clips", failure.reason)
    assert "lower data.batch_size" in failure.remedy
    events = [record.get("event", "") for record in ray.get(board.since.remote(0))]
    ray.kill(board)
    restarts = [re.search(r"worker 0 was lost .* restarting from step (\d+)", e) for e in events if "was lost" in e]
    assert [int(restart[1]) for restart in restarts if restart] == [3, 6, 9]
    assert sum(event.startswith("resuming at step") for event in events) == 3
    assert the_run(client, space.name, f"trial:{config.storage}:{config.name}").info.status == "FAILED"

    again = run_sweep(space, trials)
    assert not again.failed
    assert same(result_of(config), undisturbed)
    assert not same(train_alone(config_of(shards, tmp_path, name="other", seed=1, **changes)), undisturbed)
    run = the_run(client, space.name, f"trial:{config.storage}:{config.name}")
    assert run.info.status == "FINISHED"
    for name in ("train/loss", "train/iou"):
        assert [step for step, _ in history(client, run, name)] == list(range(1, 21))


class WithoutWeight:
    """A stream whose samples at some positions have weight zero."""

    def __init__(self, config: ExperimentConfig, positions: set[int]) -> None:
        self._stream, self._positions = local_stream(config), positions
        self.start_step, self.problems = self._stream.start_step, self._stream.problems

    def batches(self) -> Any:
        for batch in self._stream.batches():
            bad = torch.tensor([p in self._positions for p in batch["position"].tolist()])
            yield batch | {"weight": torch.where(bad, 0.0, batch["weight"])}


def damage(shards: Path, video: str, frame: int) -> None:
    """Flips one byte in the JPEG of a frame."""
    entry, index = ShardIndex.load(shards).video(video), ShardIndex.load(shards)
    path = shards / index.files[entry.shard].name
    jpeg = ShardReader(shards).read(video, [frame])[0].jpeg
    content = bytearray(path.read_bytes())
    assert content.count(jpeg) == 1
    content[content.index(jpeg) + len(jpeg) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_bad_row_is_skipped_counted_and_as_if_it_had_no_weight(shards: Path, tmp_path: Path) -> None:
    bad = tmp_path / "shards"
    shutil.copytree(shards, bad)
    video = ShardIndex.load(shards).videos[2].name
    damage(bad, video, 0)  # the labelled frame: every clip of this video needs it
    changes = {"data.on_bad_row": "skip", "data.max_bad_fraction": 0.5}
    config = config_of(bad, tmp_path, name="skipping", **changes)
    weights = fit(config)

    good = config_of(shards, tmp_path, name="weightless", **changes)
    plan = local_stream(good).plan
    positions = {p for p in range(8 * 4) if plan.clip(p).video == video}
    assert len(positions) >= 4
    result = RunFolder.of(config).result()
    assert result is not None
    assert {position for position, _ in result["bad_samples"]} == positions
    assert all(video in what and "checksum" in what for _, what in result["bad_samples"])
    assert same(weights, train_alone(good, WithoutWeight(good, positions)))
    assert not same(weights, train_alone(config_of(shards, tmp_path, name="whole", **changes)))
