"""The functions of the package do what the verbs do, to the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_population import Trainer, members_of
from tiny_study import make_dataset, tiny_config
from typer.testing import CliRunner

import ovos_ray
from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, override, to_dict
from ovos_ray.errors import ConfigError
from ovos_ray.study.population import run_population
from ovos_ray.study.space import SearchSpace


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset, and a module with a tiny recipe."""
    make_dataset(tmp_path)
    values = {**to_dict(tiny_config(Path(), steps=2)), "tracking_uri": ""}
    (tmp_path / "tiny.py").write_text(
        f"from ovos_ray.config import ExperimentConfig, from_dict\n\ndef tiny():\n"
        f"    return from_dict(ExperimentConfig, {values!r})\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verb(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_training_and_predicting_give_the_bytes_of_the_verbs(folder: Path) -> None:
    run = ovos_ray.train("tiny", quiet=True)
    verb("train", "tiny", "--no-ray", "storage=others")
    by_verb = folder / "others" / "one-shot"
    for name in ("network.safetensors", "scores.csv"):
        assert (Path(run.folder) / name).read_bytes() == (by_verb / name).read_bytes()
    other = ovos_ray.train("tiny", {"seed": 1, "name": "other"}, quiet=True)
    assert (Path(other.folder) / "network.safetensors").read_bytes() != (by_verb / "network.safetensors").read_bytes()
    assert run.scores == ovos_ray.Run.open(by_verb).scores
    assert run.scores["jf"] > 0

    (video,) = _videos(folder)
    mask = folder / "dataset" / "Annotations" / "480p" / video.name / "00000.png"
    verb("predict", "--checkpoint", str(by_verb), "--frames", str(video), "--mask", str(mask), "--out", "masks")
    frames = [np.asarray(Image.open(path)) for path in sorted(video.iterdir())]
    for given in (video, frames):
        predicted = list(run.predict(given, mask, device="cpu"))
        saved = [np.asarray(Image.open(path)) for path in sorted((folder / "masks" / video.name).glob("*.png"))]
        assert len(saved) == len(frames)
        assert all(np.array_equal(one, other) for one, other in zip(predicted, saved, strict=True))
    loaded = ovos_ray.load("stcn-tiny", by_verb)
    assert all(torch.equal(one, loaded.state_dict()[key]) for key, one in run.network().state_dict().items())


def _videos(folder: Path) -> list[Path]:
    names = (folder / "dataset" / "ImageSets" / "2017" / "val.txt").read_text().split()
    return [folder / "dataset" / "JPEGImages" / "480p" / name for name in names]


def test_packing_gives_the_bytes_of_the_verb(folder: Path) -> None:
    index = ovos_ray.pack("synthetic", folder / "dataset", "mine", split="train")
    verb("pack", "synthetic", "--root", "dataset", "--out", "theirs", "--split", "train")
    assert len(index.videos) == 4
    for path in (folder / "mine").glob("*.parquet"):
        assert path.read_bytes() == (folder / "theirs" / path.name).read_bytes()


@pytest.mark.slow
def test_a_study_becomes_a_table(folder: Path) -> None:
    space = SearchSpace(name="two", trainable="tiny", axes={"method.backward": ("T-step", "2-step")}, seeds=(0,))
    before = ovos_ray.Study.open(space)
    assert before.table()["state"].tolist() == ["waiting", "waiting"]
    with pytest.raises(ConfigError, match="no trial has jf"):
        before.best()
    study = ovos_ray.sweep(space, {"train.log_every": 1}, quiet=True)
    table = study.table()
    assert table["method.backward"].tolist() == ["T-step", "2-step"]
    assert table["state"].tolist() == ["finished", "finished"]
    assert study.best().scores["jf"] == table["jf"].max()
    assert ovos_ray.Study.open(space).table().equals(table)
    alone = ovos_ray.train("tiny", {"method.backward": "2-step", "name": "alone"}, again=True, quiet=True)
    weights = [Path(run.folder, "network.safetensors").read_bytes() for run in (alone, study.runs()["2-step seed 0"])]
    assert weights[0] == weights[1]


def test_the_members_of_a_population_have_what_their_last_parts_have(folder: Path) -> None:
    selection = {"validation.root": str(folder / "dataset"), "validation.split": "train", "validation.every": 4}
    settings = {**selection, "network.name": "stcn-tiny", "train.steps": 10}
    space, members = members_of(override(ExperimentConfig(tracking_uri=""), settings), folder)
    study = ovos_ray.Study(space, tuple(members))
    assert study.table()["state"].tolist() == ["waiting"] * 4
    result = run_population(space, members, Trainer())
    table = study.table()
    assert table["state"].tolist() == ["finished"] * 4
    assert table["val/jf"].tolist() == [result.results[member.name]["validation"]["jf"] for member in members]
    rates = [run.config.optimizer.learning_rate for run in study.runs().values()]
    assert table["optimizer.learning_rate"].tolist() == rates != [one.config.optimizer.learning_rate for one in members]
    best = study.best()
    assert best.values["validation"]["jf"] == table["val/jf"].max()
    Path(best.folder, "result.json").unlink()
    assert study.table()["state"].tolist().count("finished") == 3
    assert study.best().folder != best.folder
    (Path(study.best().folder) / "result.json").write_text('{"scores": {}, "stopped": true, "validation": {"jf": 99}}')
    assert study.best().values["validation"]["jf"] < 99, "what was stopped early is not the best"


def test_settings_may_be_paths(tmp_path: Path) -> None:
    for given in (tmp_path, [tmp_path], [str(tmp_path)], str(tmp_path)):
        settings = {"data.shards": given, "evaluation.root": tmp_path, "storage": tmp_path / "runs"}
        config = ovos_ray.recipe("trainables.one_shot", settings)
        study = ovos_ray.Study.open("search_spaces.smoke", settings)
        for one in (config, study.trials[0].config):
            assert one.data.shards == (str(tmp_path),)
            assert one.evaluation.root == str(tmp_path)
    assert ovos_ray.recipe("trainables.one_shot", ["data.shards=2024"]).data.shards == ("2024",)


def test_what_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no finished run"):
        ovos_ray.Run.open("runs/nothing")
    with pytest.raises(ConfigError, match="several workers need Ray"):
        ovos_ray.train("tiny", {"train.num_workers": 2})
    with pytest.raises(ConfigError, match="no weights are named"):
        ovos_ray.load()
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        ovos_ray.trian  # noqa: B018


def test_importing_is_light_and_train_is_a_room_and_a_function() -> None:
    code = (
        "import sys, ovos_ray; assert callable(ovos_ray.train); assert set(ovos_ray.__all__) <= set(dir(ovos_ray))\n"
        "import ovos_ray.train.checkpoint; assert callable(ovos_ray.train); ovos_ray.train.checkpoint\n"
    )
    light = "import sys, ovos_ray\nassert not {'torch', 'numpy', 'ray', 'typer', 'pandas'} & set(sys.modules)"
    for each in (code, light):
        subprocess.run([sys.executable, "-c", each], check=True)
