"""Configurations are typed, overridable by dotted key, storable, and identified by what they compute."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from ovos_ray.config import INITS, DataConfig, ExperimentConfig, from_dict, override, to_dict
from ovos_ray.config.digest import digest, resolve_paths
from ovos_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.steps=500", 500),
        ("train.steps=1e5", 100_000),
        ("optimizer.learning_rate=1e-4", 1e-4),
        ("optimizer.clip_norm=3", 3.0),
        ("optimizer.clip_norm=none", None),
        ("data.shards=a,b", ("a", "b")),
        ("data.shards=a", ("a",)),
        ("data.multipliers=1,5", (1, 5)),
        ("data.max_skip=[[0, 5], [0.5, 10]]", ((0.0, 5), (0.5, 10))),
        ("data.max_skip=((0.0, 5), (0.5, 10))", ((0.0, 5), (0.5, 10))),
        ("evaluation.root=", None),
        ("method.share_features=false", False),
        ("method.backward=T-step", "T-step"),
        ("data.augmentation=none", None),
        ("pretrain.recipe=trainables.static_pretraining", "trainables.static_pretraining"),
    ],
)
def test_words_are_read_as_the_type_of_their_key(word: str, expected: object) -> None:
    base = override(ExperimentConfig(), {"pretrain": {"recipe": "x"}, "optimizer.clip_norm": 1.0})
    value = functools.reduce(getattr, word.partition("=")[0].split("."), override(base, [word]))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=5", "did you mean train.steps"),
        ("method.backwards=T-step", "did you mean method.backward"),
        ("train.steps=1.5", "not an int"),
        ("train.steps=true", "not an int"),
        ("method.name=magic", "not one of"),
        ("train=5", "group of settings"),
        ("train.steps", "not an override"),
        ("seed.x=1", "has no parts"),
        ("data.max_skip=[[0, 5, 6]]", "should have 2 values"),
    ],
)
def test_wrong_words_are_refused_with_a_hint(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        override(ExperimentConfig(), [word])


def test_a_configuration_survives_json() -> None:
    config = override(
        ExperimentConfig(), {"pretrain": {"recipe": "a", "overrides": ["train.steps=3"]}, "data.augmentation": None}
    )
    assert from_dict(ExperimentConfig, json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ConfigError, match=r"unknown configuration key 'data\.clip_lengths'"):
        from_dict(ExperimentConfig, {"data": {"clip_lengths": 3}})


def test_overriding_changes_a_copy() -> None:
    config = ExperimentConfig()
    changed = override(config, {"train.steps": 7})
    assert config.train.steps == 1000
    assert changed.train.steps == 7
    assert override(config, {}) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]


def test_the_digest_names_what_is_computed() -> None:
    config = override(ExperimentConfig(), {"data.shards": ("/a/davis",)})
    same = {"name": "x", "storage": "y", "train.log_every": 3, "train.num_workers": 2, "data.shards": ("/b/davis",)}
    assert digest(override(config, same)) == digest(config)
    for key, value in {"seed": 1, "method.backward": "T-step", "data.shards": ("/a/other",)}.items():
        assert digest(override(config, {key: value})) != digest(config)


def test_paths_become_absolute_and_uris_stay(tmp_path: Path) -> None:
    config = override(ExperimentConfig(data=DataConfig(shards=("shards/a", "s3://bucket/b"))), {"storage": "runs"})
    resolved = resolve_paths(config, tmp_path)
    assert resolved.data.shards == (str(tmp_path / "shards/a"), "s3://bucket/b")
    assert resolved.storage == str(tmp_path / "runs")
    assert resolved.network.init == "auto"
    for init in INITS:
        assert resolve_paths(override(config, {"network.init": init}), tmp_path).network.init == init
    weights = resolve_paths(override(config, {"network.init": "stcn.pth"}), tmp_path).network.init
    assert weights == str(tmp_path / "stcn.pth")
