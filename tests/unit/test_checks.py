"""Configurations that cannot be carried out are refused before anything is measured, started or written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from davis_folder import make_davis
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import ConfigError, OvosError
from ovos_ray.packing.pack import pack
from ovos_ray.run.checks import check_config
from ovos_ray.track.servers import require_store

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checks")
    dataset = open_dataset(make_davis(root / "davis"), "davis2017")
    for labels in ("first", "all"):
        pack(dataset, root / labels, labels=labels)
    return root


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.batch_size": 0}, r"data\.batch_size = 0 is out of range"),
        ({"data.clip_length": 1}, r"data\.clip_length = 1 is out of range"),
        ({"data.max_objects": 0}, r"data\.max_objects = 0 is out of range"),
        ({"train.num_workers": 0}, r"train\.num_workers = 0 is out of range"),
        ({"train.steps": 0}, r"train\.steps = 0 is out of range"),
        ({"train.log_every": 0}, r"train\.log_every = 0 is out of range"),
        ({"optimizer.learning_rate": -1e-3}, r"optimizer\.learning_rate = -0\.001 is out of range"),
        ({"data.augmentation.frame_geometry_until": 100_000}, r"frame_geometry_until = 100000\.0 is out of range"),
        ({"data.augmentation.horizontal_flip": 50}, r"horizontal_flip = 50\.0 is out of range"),
        ({"method.loss.top_fraction": 15}, r"top_fraction = 15\.0 is out of range"),
        ({"data.max_skip": [[0.5, 5]]}, "is not a curriculum"),
        ({"train.num_workers": 5}, "data.batch_size = 4 cannot be split over 5 workers"),
        ({"train.num_workers": 2, "train.min_workers": 3}, r"train\.min_workers = 3 is out of range"),
        ({"train.num_workers": 2, "train.min_workers": 0}, r"train\.min_workers = 0 is out of range"),
        ({"network.name": "xmem-tinny"}, "unknown network 'xmem-tinny'"),
        ({"method.backward": "1-step"}, "without gradient"),
        ({"method.backward": "9-step"}, "needs clips of 10 frames, they have 5"),
        ({"network.init": "imagenet"}, "there are no ImageNet weights for xmem-tiny"),
        ({"validation.root": "nowhere"}, r"validation\.root: .*nowhere: no such folder"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    good = override(ExperimentConfig(), {"data.clip_length": 5})
    check_config(good)
    with pytest.raises(OvosError, match=f"(?s){message}"):
        check_config(override(good, changes))


def test_without_augmentation_there_is_nothing_of_it_to_check() -> None:
    check_config(override(ExperimentConfig(), {"data.augmentation": None}))


def test_full_supervision_needs_shards_with_all_labels(root: Path) -> None:
    supervised = override(ExperimentConfig(), {"method.name": "supervised", "data.shards": (str(root / "first"),)})
    with pytest.raises(ConfigError, match="first holds one a video") as error:
        check_config(supervised)
    assert "--labels all" in (error.value.remedy or "")
    check_config(override(supervised, {"data.shards": (str(root / "all"),)}))
    check_config(override(supervised, {"method.name": "one_shot"}))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.num_workers=5", "cannot be split over 5 workers"),
        ("evaluation.root=nowhere", "evaluation.root"),
        ("evaluation.root=davis", "no split 'val'"),
        ("method.name=supervised", "needs a label on every frame"),
        ("pretrain.recipe=trainables.one_shot", "pretraining .* no data.shards are given for it"),
        ("pretrain=trainables.static_pretraining", "is not a group of settings"),
        ("pretrain.recipe=trainables.nothing", "no recipe 'trainables.nothing'"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    root: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    before = sorted(root.rglob("*"))
    command = ["train", "trainables.one_shot", "data.shards=first", "data.clip_length=3", "--dry-run", word]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, OvosError)
    assert re.search(message, result.exception.message)
    assert result.exception.remedy
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.steps=-5", r"train\.steps = -5 is out of range"),
        ("method.backward=foo", "'foo'"),
        ("name=", "name"),
        ("network.init=imagenet", "no ImageNet weights for"),
        ("tracking_uri=htp://x", "tracking_uri = htp://x: MLflow has no store of scheme 'htp'"),
        ("tracking_uri=ftp://me:geheim@x", "credentials"),
    ],
)
def test_show_refuses_what_no_run_could_be(monkeypatch: pytest.MonkeyPatch, word: str, message: str) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    result = CliRunner().invoke(app, ["show", "trainables.one_shot", word])
    assert isinstance(result.exception, OvosError)
    assert re.search(message, result.exception.message)


def test_all_stores_that_mlflow_knows_are_taken_and_named_to_who_asks_for_another() -> None:
    for uri in ("", "mlruns", "sqlite:///a.db", "https://x", "postgresql+psycopg2://me@x/runs", "databricks://profile"):
        require_store(uri)
    with pytest.raises(ConfigError) as error:
        require_store("htp://x")
    for scheme in ("http://", "postgresql://", "databricks://"):
        assert scheme in str(error.value.remedy)
