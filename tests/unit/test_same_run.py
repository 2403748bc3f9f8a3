"""Studies that share a configuration train it once; only what is whole, finished and scored is taken over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_study import make_dataset, tiny_config
from typer.testing import CliRunner

from ovos_ray.cli import train
from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import CheckpointError
from ovos_ray.lease import Lease
from ovos_ray.on_ray import study as on_ray
from ovos_ray.run.here import fit_here
from ovos_ray.run.prepare import request_for
from ovos_ray.run.request import RunRequest
from ovos_ray.run.same import finished_below
from ovos_ray.study import here
from ovos_ray.study.expand import expand
from ovos_ray.study.run_study import run_study
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import SweepResult, summarise
from ovos_ray.train.run_folder import RunFolder

STRATEGIES = SearchSpace(
    name="strategies", trainable="none", axes={"method.backward": ("2-step", "T-step")}, seeds=(0,)
)
LENGTHS = SearchSpace(name="lengths", trainable="none", axes={"data.clip_length": (3, 4)}, seeds=(0,))
"""Both contain 2-step with clips of 4 frames."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("same"))


def trials_of(space: SearchSpace, root: Path, storage: Path, **changes: object) -> list[Trial]:
    return expand(
        space, override(tiny_config(root, steps=2), {"storage": str(storage), "tracking_uri": "", **changes})
    )[0]


class Trained:
    """Makes runs in this process, and counts them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, _: SearchSpace, __: Sequence[Trial], runs: Mapping[str, RunRequest], ___: Lease) -> None:
        for name, request in runs.items():
            self.names.append(name)
            fit_here(request)


def run(space: SearchSpace, trials: Sequence[Trial], **options: Any) -> tuple[SweepResult, list[str]]:
    trained = Trained()
    return run_study(space, trials, trained, **{"take_over_same": True, **options}), trained.names


def test_a_configuration_of_two_studies_is_trained_once(root: Path, tmp_path: Path, store: str, client: Any) -> None:
    first, trained = run(STRATEGIES, trials_of(STRATEGIES, root, tmp_path, tracking_uri=store))
    assert len(trained) == 2
    said: list[dict[str, Any]] = []
    trials = trials_of(LENGTHS, root, tmp_path, tracking_uri=store)
    second, trained = run(LENGTHS, trials, watcher=said.append)
    assert trained == ["clip_length 3 seed 0"], "the other one is there"
    source = first.results["2-step seed 0"]
    taken = second.results["clip_length 4 seed 0"]
    there = tmp_path / "strategies" / source["name"]
    own = {"name": taken["name"], "tracking_run": taken["tracking_run"], "taken_over": str(there)}
    assert taken == {**source, **own}
    assert taken["tracking_run"] != source["tracking_run"]
    assert any(f"the same run is finished in {there}" in str(record.get("event")) for record in said)
    for name in ("network.safetensors", "scores.csv"):
        assert (tmp_path / "lengths" / taken["name"] / name).read_bytes() == (there / name).read_bytes()
    logged, original = (client.get_run(result["tracking_run"]).data for result in (taken, source))
    assert logged.metrics["final/jf"] == original.metrics["final/jf"]
    assert logged.tags["ovos.taken_over_run"] == source["tracking_run"]
    assert logged.tags["ovos.study"] == "lengths"
    assert logged.params["method.backward"] == "2-step"
    assert {row.name: row.num_taken_over for row in summarise(LENGTHS, trials, second.results)} == {
        "clip_length 3": 0,
        "clip_length 4": 1,
    }


def test_a_run_by_itself_is_taken_over_unless_it_is_asked_for_again(root: Path, tmp_path: Path) -> None:
    trials = trials_of(STRATEGIES, root, tmp_path)
    run(STRATEGIES, trials)
    config = override(trials[0].config, {"name": "mine", "storage": str(tmp_path)})
    taken = fit_here(RunRequest(config, "same", "mine", same_below=str(tmp_path)))
    assert taken.values["taken_over"] == RunFolder.of(trials[0].config).storage.folder
    again = fit_here(RunRequest(override(config, {"name": "anew"}), "same", "anew"))
    assert "taken_over" not in again.values
    assert again.values["scores"] == taken.values["scores"], "it would have been the same"
    assert len(run(LENGTHS, trials_of(LENGTHS, root, tmp_path), take_over_same=False)[1]) == 2


def test_what_was_taken_over_is_trained_when_it_is_asked_for_again(root: Path, tmp_path: Path) -> None:
    trials = trials_of(STRATEGIES, root, tmp_path)
    run(STRATEGIES, trials)
    config = override(trials[0].config, {"name": "mine", "storage": str(tmp_path)})
    taken = fit_here(request_for(config, "same", tags={}))
    assert "taken_over" in taken.values
    anew = fit_here(request_for(config, "same", tags={}, again=True))
    assert not anew.resumed_finished
    assert "taken_over" not in anew.values
    kept = json.loads((tmp_path / "replaced" / "mine-1" / "result.json").read_text())
    assert kept["taken_over"] == taken.values["taken_over"], "set aside, not lost"
    assert fit_here(request_for(config, "same", tags={}, again=True)).resumed_finished, "it is its own now"

    assert run(LENGTHS, trials_of(LENGTHS, root, tmp_path))[1] == ["clip_length 3 seed 0"]
    assert run(LENGTHS, trials_of(LENGTHS, root, tmp_path), take_over_same=False)[1] == ["clip_length 4 seed 0"]
    assert run(LENGTHS, trials_of(LENGTHS, root, tmp_path), take_over_same=False)[1] == []


def test_a_finished_run_says_so_before_it_measures_anything(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = override(tiny_config(root, steps=1), {"storage": str(tmp_path), "name": "done", "tracking_uri": ""})
    fit_here(request_for(config, "same", tags={}))
    monkeypatch.setattr(train, "_print_plan", lambda *_, **__: pytest.fail("it measures steps"))
    for words in ([], ["--no-ray"], ["--again"], ["--replace"]):
        said = CliRunner().invoke(app, ["train", str(tmp_path / "done"), *words], catch_exceptions=False).stdout
        assert "done was finished before; nothing to do" in said
        assert f"run folder: {tmp_path / 'done'}" in said
        assert len(said.splitlines()) <= 3
    assert isinstance(CliRunner().invoke(app, ["train", str(tmp_path / "done"), "seed=7"]).exception, CheckpointError)


def _stopped(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps({**result, "stopped": True}))


def _failed(folder: Path, _: dict[str, Any]) -> None:
    (folder / "result.json").unlink()
    (folder / "failure.json").write_text('{"error": "DataError", "reason": "", "remedy": ""}')


def _unscored(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps({**result, "scores": {}, "not_scored": {"x": "a damaged mask"}}))


def _without_weights(folder: Path, _: dict[str, Any]) -> None:
    (folder / "network.safetensors").unlink()


def _damaged(folder: Path, _: dict[str, Any]) -> None:
    (folder / "result.json").write_text("{")


def _other(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps({**result, "digest": "0" * 12}))


@pytest.mark.parametrize("spoil", [_stopped, _failed, _unscored, _without_weights, _damaged, _other])
def test_what_is_not_whole_is_trained(
    root: Path, tmp_path: Path, spoil: Callable[[Path, dict[str, Any]], None]
) -> None:
    config = override(
        tiny_config(root, steps=1), {"storage": str(tmp_path / "study"), "name": "there", "tracking_uri": ""}
    )
    result = fit_here(RunRequest(config, "same", "there"))
    spoil(tmp_path / "study" / "there", dict(result.values))
    mine: ExperimentConfig = override(config, {"storage": str(tmp_path), "name": "mine"})
    assert "taken_over" not in fit_here(RunRequest(mine, "same", "mine", same_below=str(tmp_path))).values


def test_finding_them_looks_into_no_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(STRATEGIES, trials_of(STRATEGIES, root, tmp_path))
    looked: list[str] = []
    from ovos_ray.storage import Storage

    real = Storage.folders
    monkeypatch.setattr(Storage, "folders", lambda self: looked.append(self.folder) or real(self))  # type: ignore[func-returns-value]
    assert len(finished_below(str(tmp_path))) == 2
    assert looked == [str(tmp_path), str(tmp_path / "strategies")]


def test_both_engines_take_over(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(STRATEGIES, trials_of(STRATEGIES, root, tmp_path))
    monkeypatch.setattr(on_ray, "await_room", lambda *_, **__: None)
    for name, engine in (("plain", here.run_plain), ("ray", on_ray.run_sweep)):
        space = SearchSpace(name=name, trainable="none", axes=STRATEGIES.axes, seeds=(0,))
        result = engine(space, trials_of(space, root, tmp_path), take_over_same=True)
        assert len(result.results) == 2
        assert all(one["taken_over"].startswith(str(tmp_path / "strategies")) for one in result.results.values())
