"""What only a GPU or the internet could give is a problem of the dry run, or priced for elsewhere from stored steps."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from tiny_study import make_dataset
from typer.testing import CliRunner, Result

from ovos_ray.cli.app import app
from ovos_ray.config import override
from ovos_ray.config.recipes import make
from ovos_ray.config.settings import ExperimentConfig
from ovos_ray.errors import ConfigError, ResourceError, WeightsError
from ovos_ray.run.stored_times import stored_cost

REPOSITORY = Path(__file__).resolve().parents[2]
STUDY = ["sweep", "search_spaces.smoke", "data.shards=shards", "evaluation.root=dataset", "--dry-run"]
RUN = ["train", "trainables.one_shot", "data.shards=shards", "evaluation.root=dataset", "--dry-run"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(autouse=True)
def _without_gpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("OVOS_IMAGENET", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def asked(*words: str) -> tuple[Result, str]:
    result = CliRunner().invoke(app, list(words))
    return result, " ".join(result.output.split())


def test_a_gpu_that_is_not_there_is_a_problem_of_the_dry_run() -> None:
    result, text = asked(*STUDY, "train.gpus_per_worker=1")
    assert result.exit_code == 1
    assert "train.gpus_per_worker=1, and this machine has no GPU" in text
    assert "CPU-hours" not in text, "a GPU's work is not priced on a CPU"
    result, _ = asked(*RUN, "train.gpus_per_worker=1", "data.clip_length=3")
    assert isinstance(result.exception, ResourceError)
    assert "--on h100" in str(result.exception.remedy)


def test_a_study_for_elsewhere_is_priced_from_stored_steps() -> None:
    words = ["train.gpus_per_worker=1", "--on", "h100", "network.name=xmem", "network.init=random"]
    words += ["method.backward=2-step", "seeds=0", "train.steps=72000", "data.batch_size=4", "data.clip_length=4"]
    result, text = asked(*STUDY, *words, "data.crop_size=384")
    assert result.exit_code == 0, (text, result.exception)
    # Half the stored frames: 72,000 x 0.100 s / 2 = 1 h.
    assert "1 of 1 trial: 1.0 H100-hours" in text
    assert "scaled by clips, frames and pixels from stored steps of one H100 (xmem 0.100 s" in text
    tiny, text = asked(*STUDY, "train.gpus_per_worker=1", "--on", "h100", "seeds=0")
    assert tiny.exit_code == 0
    assert "not stored" in text


def test_stored_steps_are_scaled_by_clips_frames_and_pixels() -> None:
    config = make("trainables.one_shot.xmem", ExperimentConfig)
    changes: dict[str, object] = {
        "method.backward": "2-step",
        "train.num_workers": 2,
        "data.batch_size": 16,
        "data.clip_length": 4,
        "data.crop_size": 192,
    }
    cost = stored_cost(override(config, {"train.steps": 1000, **changes}), "h100")
    assert cost is not None
    assert cost.seconds == pytest.approx(1000 * 0.100 * 2 / 2 / 4), "8 clips a worker, half the frames, a quarter"
    assert stored_cost(make("trainables.one_shot.cutie", ExperimentConfig), "h100") is None
    assert stored_cost(make("trainables.fully_supervised.xmem", ExperimentConfig), "h100") is None
    for gpu, gpus in (("abacus", 1), ("h100", 0)):
        with pytest.raises(ConfigError):
            stored_cost(override(config, {"train.gpus_per_worker": gpus}), gpu)
    assert isinstance(asked(*RUN[:-1], "--on", "h100")[0].exception, ConfigError), "it would train here"


def test_the_dry_run_says_whether_imagenet_weights_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*RUN, "network.name=xmem", "train.gpus_per_worker=1", "data.clip_length=3", "--on", "h100"]

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    result, _ = asked(*words)
    assert isinstance(result.exception, WeightsError)
    assert "not at hand and cannot be fetched" in result.exception.message
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    for name in ("resnet50-0676ba61.pth", "resnet18-f37072fd.pth"):
        (tmp_path / "hub" / "checkpoints" / name).touch()
    result, text = asked(*words)
    assert result.exit_code == 0, result.exception
    assert "ImageNet weights are at hand" in text
    assert not asked(*words, "network.init=random")[1].count("ImageNet weights are")
    monkeypatch.setenv("OVOS_IMAGENET", str(tmp_path))
    assert isinstance(asked(*words)[0].exception, WeightsError)
