"""Which checkpoint is the result: the last, or the best of a validation split that is not the reported one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
from runs import Weights, copy_of_made, result_of, same, train_alone

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ConfigError
from ovos_ray.run import loop, run_log
from ovos_ray.run.checks import check_validation
from ovos_ray.train.run_folder import RunFolder

SCORES = {2: 30.0, 4: 50.0, 6: 50.0, 8: 40.0}
"""J&F by step; the best is reached twice."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_made(tmp_path_factory.mktemp("data"), num_train=3, num_frames=5, num_val=2).with_name("dataset")


def config_of(dataset: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    small = {"network.name": "stcn-tiny", "data.clip_length": 3, "data.batch_size": 2, "data.crop_size": 32}
    kept = {"train.checkpoint_every": 3, "train.log_every": 4, "train.keep_checkpoints": 1}
    best = {"validation.root": str(dataset), "validation.every": 2, "validation.select_best": True}
    return runs.config_of(dataset.with_name("shards"), storage, **small | kept | best | changes)


class Recorder:
    """Stands where the tracking sink is."""

    run_id = "a run"

    def __init__(self) -> None:
        self.metrics: list[tuple[str, int, float]] = []
        self.tags: dict[str, Any] = {}

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.metrics += [(name, step, value) for name, value in values.items()]

    def set_tags(self, tags: dict[str, Any]) -> None:
        self.tags |= tags

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class InterruptionError(Exception):
    pass


class Stage:
    """Training with made-up validation scores, that can be interrupted after any step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step, self.stop_after = 0, 0
        self.weights: dict[int, Weights] = {}
        self.recorder = Recorder()
        self.kept: set[int] = set()
        real = loop.train_step

        def stepping(module: Any, batch: Any, optimizer: Any, config: Any, step: int, **options: Any) -> Any:
            if self.stop_after and step == self.stop_after:
                raise InterruptionError
            scalars = real(module, batch, optimizer, config, step, **options)
            self.step = step + 1
            self.weights[self.step] = {k: v.clone() for k, v in module.network.state_dict().items()}
            return scalars

        def scoring(*_: Any, split: str, **__: Any) -> Any:
            return Table({"jf": SCORES.get(self.step, 1.0), "j": 0.0, "f": 0.0})

        monkeypatch.setattr(loop, "train_step", stepping)
        monkeypatch.setattr(loop, "evaluate_network", scoring)
        monkeypatch.setattr(run_log.Sink, "open", lambda *_, **__: self.recorder)

    def run(self, config: ExperimentConfig, stop_after: int = 0) -> dict[str, Any]:
        self.stop_after = stop_after
        train_alone(config)
        folder = RunFolder.of(config)
        self.kept = set(folder.checkpoints()._steps())
        result = folder.result()
        assert result is not None
        return result


class Table:
    def __init__(self, scores: dict[str, float]) -> None:
        self._scores = scores

    def headline(self) -> dict[str, float]:
        return self._scores


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_the_best_step_is_the_result_and_its_checkpoint_is_kept(dataset: Path, tmp_path: Path, stage: Stage) -> None:
    config = config_of(dataset, tmp_path)
    result = stage.run(config)
    assert result["checkpoint"] == {"rule": "best", "step": 4, "val/jf": 50.0}, "the first of two equal ones"
    assert same(result_of(config), stage.weights[4])
    assert not same(result_of(config), stage.weights[8])
    assert stage.kept == {4, 8}
    assert stage.recorder.tags["ovos.checkpoint"] == "best, step 4"
    assert [m for m in stage.recorder.metrics if m[0] == "val/jf"] == [("val/jf", s, v) for s, v in SCORES.items()]
    # 3 labels of 15 training frames, and all 10 frames of the validation split.
    assert (result["labels"]["training"], result["labels"]["validation"]) == (3, 10)
    assert result["label_percent"] == pytest.approx(100 * 13 / 25)


def test_the_last_step_is_the_result_by_default(dataset: Path, tmp_path: Path, stage: Stage) -> None:
    config = config_of(dataset, tmp_path, **{"validation.select_best": False})
    result = stage.run(config)
    assert result["checkpoint"] == {"rule": "last", "step": 8}
    assert same(result_of(config), stage.weights[8])
    assert stage.kept == {8}


@pytest.mark.parametrize("stop_after", range(1, 8))
def test_an_interrupted_run_chooses_the_same_step(dataset: Path, tmp_path: Path, stage: Stage, stop_after: int) -> None:
    undisturbed = config_of(dataset, tmp_path / "undisturbed")
    expected = stage.run(undisturbed)
    config = config_of(dataset, tmp_path / "interrupted")
    with pytest.raises(InterruptionError):
        stage.run(config, stop_after=stop_after)
    result = stage.run(config)
    assert result["checkpoint"] == expected["checkpoint"]
    assert same(result_of(config), result_of(undisturbed))
    assert stage.kept == {4, 8}


def test_a_run_interrupted_after_its_last_step_still_has_its_best(dataset: Path, tmp_path: Path, stage: Stage) -> None:
    config = config_of(dataset, tmp_path)
    stage.run(config)
    weights = result_of(config)
    folder = RunFolder.of(config).storage
    folder.remove("result.json")
    folder.remove("network.safetensors")
    assert stage.run(config)["checkpoint"]["step"] == 4
    assert same(result_of(config), weights)


def test_a_split_that_chooses_is_not_the_one_that_is_reported(dataset: Path, tmp_path: Path) -> None:
    def config(**changes: Any) -> ExperimentConfig:
        return config_of(dataset, tmp_path, **{"evaluation.root": str(dataset), **changes})

    with pytest.raises(ConfigError, match="validation chooses by 10 masks that are reported too"):
        check_validation(config())
    link = tmp_path / "link"
    link.symlink_to(dataset)
    with pytest.raises(ConfigError, match="validation chooses by 5 masks that are reported too"):
        check_validation(config(**{"validation.root": str(link), "validation.num_videos": 1}))
    check_validation(config(**{"validation.split": "train"}))
    watching = config(**{"validation.select_best": False})
    check_validation(watching)
    with pytest.raises(ConfigError, match="reported too"):
        check_validation(watching, chooses=True)
    for missing in ({"validation.every": 0}, {"validation.root": None}):
        with pytest.raises(ConfigError, match="no scores during training to choose by"):
            check_validation(config(**{"validation.split": "train", **missing}))
