"""A study whose driver was cut off from its bucket, and which another one has taken over: it ends at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_study import make_dataset, tiny_config

from ovos_ray import lease
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import HeldError
from ovos_ray.lease import Lease
from ovos_ray.run.notice import EndingNotice
from ovos_ray.run.request import RunRequest
from ovos_ray.storage import Storage
from ovos_ray.study import run_study as study
from ovos_ray.study.expand import expand
from ovos_ray.study.here import run_plain
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.train.run_folder import RunFolder

TAKEN = b"process 1 on another\ntoken\n0\n"
STRATEGIES = ("2-step", "1-step", "T-step")
SPACE = SearchSpace(name="lost", trainable="none", axes={"method.backward": STRATEGIES}, seeds=(0,))


@pytest.fixture
def base(tmp_path: Path) -> ExperimentConfig:
    config = tiny_config(make_dataset(tmp_path), steps=2000, checkpoint_every=1_000_000)
    return override(config, {"train.log_every": 1, "evaluation.root": None, "tracking_uri": ""})


@pytest.fixture(autouse=True)
def held_by_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is held as if it were a bucket's."""

    @contextmanager
    def hold(storage: Storage, *_: Any) -> Iterator[Lease]:
        with lease.leased(storage, lambda who: 0.0) as held:
            yield held

    monkeypatch.setattr(study, "hold", hold)
    monkeypatch.setattr(lease, "_BEAT_S", 0.02)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_its_trials_end_no_more_are_begun_and_none_is_called_failed(base: ExperimentConfig, store: str) -> None:
    from mlflow import MlflowClient

    trials, _ = expand(SPACE, override(base, {"tracking_uri": store}))
    folder, events = Storage(trials[0].config.storage), list[dict[str, Any]]()

    def taken_over(record: dict[str, Any]) -> None:
        events.append(record)
        if {"train/loss"} <= record.keys() and len({one["run"] for one in events}) == 2:  # both are under way
            folder.put(TAKEN, "lease")

    with pytest.raises(HeldError, match="taken over by process 1 on another"):
        run_plain(SPACE, trials, watcher=taken_over, num_processes=2)
    assert not multiprocessing.active_children()
    assert {one["run"] for one in events} == {trial.config.name for trial in trials[:2]}
    assert not [one for one in events if one.get("failed")]
    assert folder.read("lease") == TAKEN
    for trial in trials[:2]:
        run = RunFolder.of(trial.config)
        assert run.checkpoints().latest(), "it has let go of its own folder as if told to end"
        assert not run.storage.exists("failure.json")
        assert run.result() is None
    assert not RunFolder.of(trials[2].config).claimed
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("lost").experiment_id])
    assert {run.info.status for run in runs} == {"RUNNING"}


class Loses:
    """Finishes every run at once, and the study with the first of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, list[str]()
        self.left: dict[str, bytes] = {}

    def __call__(self, _: SearchSpace, __: Sequence[Trial], runs: Mapping[str, RunRequest], held: Lease) -> None:
        for name, request in runs.items():
            folder = RunFolder.of(request.config)
            folder.claim(request.config)
            folder.finish({"scores": {}, "validation": {"jf": float(len(self.made))}, "digest": ""})
            self.made.append(name)
        Storage(next(iter(runs.values())).config.storage).put(TAKEN, "lease")
        self.left = files(self.root / "runs")


def test_a_population_ends_after_the_generation_in_which_it_was_lost(base: ExperimentConfig, tmp_path: Path) -> None:
    root = str(tmp_path / "dataset")
    validated = {"validation.root": root, "validation.split": "train", "validation.every": 10, "train.steps": 30}
    space = SearchSpace(
        name="lost", trainable="none", axes={"optimizer.learning_rate": (1e-3, 2e-3)}, seeds=(0,), scheduler="pbt",
        metric="val/jf",
    )  # fmt: skip
    trials, _ = expand(space, override(base, validated))
    loses = Loses(tmp_path)
    with pytest.raises(HeldError, match="taken over by process 1 on another"):
        study.run_study(space, trials, loses)
    assert loses.made == ["member 00 generation 00", "member 01 generation 00"]
    assert files(tmp_path / "runs") == loses.left


def test_what_tune_calls_before_it_starts_trials_raises_as_soon_as_the_study_is_lost(tmp_path: Path) -> None:
    from ovos_ray.on_ray.stopping import EndsTheStudy

    with lease.leased(Storage(str(tmp_path)), lambda who: 0.0) as held:
        ends = EndsTheStudy(held, EndingNotice())
        ends.on_step_begin(0, [])
        Storage(str(tmp_path)).put(TAKEN, "lease")
        with pytest.raises(HeldError):
            held.look()
        with pytest.raises(HeldError, match="taken over by process 1 on another"):
            ends.on_step_begin(1, [])
