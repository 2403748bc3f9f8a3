"""A study does not take results of other settings for its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faulty_s3 import serving
from tiny_study import make_dataset
from typer.testing import CliRunner

from ovos_ray import lease
from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import CheckpointError, HeldError
from ovos_ray.lease import Lease
from ovos_ray.run import lock
from ovos_ray.run.request import RunRequest
from ovos_ray.storage import Storage
from ovos_ray.study import run_study as study
from ovos_ray.study.expand import expand
from ovos_ray.study.run_study import run_study
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import SweepResult
from ovos_ray.train.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
SPACE = SearchSpace(name="second", trainable="none", axes={"method.backward": ("2-step", "1-step")}, seeds=(0,))
FIRST = """
import sys
from pathlib import Path
from test_earlier_studies import SPACE, Executor, lease, run_study, trials_of

class OneByOne(Executor):
    def __call__(self, space, trials, runs, held):
        for name in runs:
            super().__call__(space, trials, {name: runs[name]}, held)
            print(name, flush=True)
            sys.stdin.readline()

lease._BEAT_S = 0.05
data, storage = sys.argv[1:]
result = run_study(SPACE, trials_of(Path(data), storage), OneByOne())
print(len(result.results), "finished")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("earlier"))


def trials_of(data: Path, storage: str | Path, **changes: object) -> list[Trial]:
    base = {"network.name": "stcn-tiny", "data.shards": str(data / "shards"), "storage": str(storage)}
    trials, _ = expand(SPACE, override(ExperimentConfig(), {**base, "tracking_uri": "", **changes}))
    return trials


class Executor:
    """Finishes every run at once."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, _: SearchSpace, __: Sequence[Trial], runs: Mapping[str, RunRequest], lease: Lease) -> None:
        for name, request in runs.items():
            folder = RunFolder.of(request.config)
            folder.claim(request.config)
            rate = request.config.optimizer.learning_rate
            folder.finish({"scores": {"g": rate}, "digest": "", "seconds": 1.0, "label_percent": 1.0})
            self.made.append(name)


def run(trials: Sequence[Trial], *, replace: bool = False) -> tuple[SweepResult, list[str]]:
    executor = Executor()
    return run_study(SPACE, trials, executor, replace=replace), executor.made


def test_results_of_other_settings_are_refused_before_anything_starts(data: Path, tmp_path: Path) -> None:
    first = trials_of(data, tmp_path)
    assert len(run(first)[1]) == 2
    assert run(first)[1] == [], "its own trials are finished"
    other = trials_of(data, tmp_path, **{"optimizer.learning_rate": 0.5})
    executor = Executor()
    with pytest.raises(CheckpointError) as error:
        run_study(SPACE, other, executor)
    assert not executor.made
    assert (
        "2 of 2 finished trials were made with other settings: optimizer.learning_rate 1e-05 there, 0.5 here"
        in error.value.message
    )
    assert "name=…" in str(error.value.remedy)
    assert "--replace" in str(error.value.remedy)


def test_a_table_does_not_mix_what_is_left_with_what_is_new(data: Path, tmp_path: Path) -> None:
    first = trials_of(data, tmp_path)
    run(first)
    (tmp_path / "second" / first[0].config.name / "result.json").unlink()
    with pytest.raises(CheckpointError, match="2 of 2 trials that are there"):
        run(trials_of(data, tmp_path, **{"train.steps": 7}))


def test_what_is_replaced_is_set_aside_and_made_anew(data: Path, tmp_path: Path) -> None:
    run(trials_of(data, tmp_path))
    for number, rate in enumerate((0.5, 0.25), 1):
        result, made = run(trials_of(data, tmp_path, **{"optimizer.learning_rate": rate}), replace=True)
        assert len(made) == 2
        assert {one["scores"]["g"] for one in result.results.values()} == {rate}
        aside = sorted(path.name for path in (tmp_path / "second" / "replaced").iterdir())
        assert len(aside) == 2 * number
    stored = [json.loads((tmp_path / "second/replaced" / name / "result.json").read_text()) for name in aside]
    assert sorted(one["scores"]["g"] for one in stored) == [1e-5, 1e-5, 0.5, 0.5]
    assert run(trials_of(data, tmp_path, **{"optimizer.learning_rate": 0.25}), replace=True)[1] == [], "nothing differs"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_second_sweep_sets_nothing_aside_that_a_first_ones_study_is_made_of(
    place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_HERE_S", 0.0)
    monkeypatch.setattr(lease, "_SILENT_S", 2.0)
    with ExitStack() as stack:
        storage = str(tmp_path) if place == "folder" else f"{stack.enter_context(serving()).uri}/runs"
        others = trials_of(data, storage, **{"optimizer.learning_rate": 0.5})
        command = [sys.executable, "-c", FIRST, str(data), storage]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        first: subprocess.Popen[str] = stack.enter_context(subprocess.Popen(command, env=environment, **pipes))
        stack.callback(first.kill)
        assert first.stdout is not None
        assert first.stdout.readline(), "one of its two trials is finished"
        for replace in (False, True):
            with pytest.raises(HeldError) as error:
                run(others, replace=replace)
            assert error.value.message.startswith(f"study second is being made by process {first.pid} on ")
            assert "wait for it, or end that process" in str(error.value.remedy)
        said, _ = first.communicate("\n\n")
        assert said.splitlines()[-1] == "2 finished"
        assert not (Storage(storage) / "second" / "replaced").folders()
        assert len(run(others, replace=True)[1]) == 2, "the control: nobody makes it"


def test_what_another_process_made_while_a_sweep_waited_for_it_counts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = study.hold

    def waiting(*arguments: Any) -> Any:
        monkeypatch.setattr(study, "hold", hold)
        run(trials_of(data, tmp_path))
        return hold(*arguments)

    monkeypatch.setattr(study, "hold", waiting)
    with pytest.raises(CheckpointError, match="2 of 2 finished trials were made with other settings"):
        run(trials_of(data, tmp_path, **{"optimizer.learning_rate": 0.5}))


def test_a_population_holds_its_study_from_the_first_generation_to_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_HERE_S", 0.0)
    monkeypatch.setattr(study, "check_scheduler", lambda *_: None)
    refused: list[str] = []

    def between_generations(*_: Any) -> SweepResult:
        with pytest.raises(HeldError) as error:
            run(trials_of(data, tmp_path))
        refused.append(error.value.message)
        return SweepResult({}, ())

    monkeypatch.setattr(study, "run_population", between_generations)
    run_study(
        dataclasses.replace(SPACE, scheduler="pbt"), trials_of(data, tmp_path, **{"validation.every": 1}), Executor()
    )
    assert refused[0].startswith(f"study second is being made by process {os.getpid()} on ")


def test_a_dry_run_says_it_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    words = [
        "train", "trainables.one_shot", f"data.shards={data / 'shards'}", "train.steps=4", "name=mine",
        "tracking_uri=", "--dry-run",
    ]  # fmt: skip
    config = override(ExperimentConfig(), {"name": "mine", "storage": str(tmp_path / "runs")})
    RunFolder.of(config).claim(config)
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, CheckpointError)
    assert "holds another run" in str(result.exception)
