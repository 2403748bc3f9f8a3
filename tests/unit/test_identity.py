"""A run is what it was made from: other data, other weights or other settings under its name are refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from runs import config_of, local_stream, make_shards, train_alone

from ovos_ray.config import ExperimentConfig, override, to_dict
from ovos_ray.config import digest as digest_module
from ovos_ray.config.digest import differences, digest, unpinned
from ovos_ray.config.roles import Computes, settings_of
from ovos_ray.config.stored import SCHEMA, read_stored, to_store
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import CheckpointError, ConfigError, OvosError
from ovos_ray.networks import build
from ovos_ray.packing.pack import pack
from ovos_ray.run.pin import pin_content
from ovos_ray.run.prepare import make_run
from ovos_ray.run.pretraining import pin, pretraining_folder, pretraining_stage
from ovos_ray.run.request import RunRequest
from ovos_ray.track import provenance
from ovos_ray.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of shards that are called alike and hold other videos: `a/shards` and `b/shards`."""
    root = tmp_path_factory.mktemp("identity")
    make_shards(root / "a")
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=8)
    synthetic.generate(root / "b" / "dataset", seed=4, num_videos={"train": 6, "val": 1}, config=small)
    pack(open_dataset(root / "b" / "dataset"), root / "b" / "shards", labels="first", split="train")
    return root


def start(config: ExperimentConfig, events: list[dict[str, Any]] | None = None) -> None:
    """Makes a run of which nothing is trained."""
    finish = {"scores": {}, "seconds": 0.0, "label_percent": 1.0}
    request = RunRequest(config, "none", config.name, watcher=None if events is None else events.append)
    make_run(request, lambda one: RunFolder.of(one.config).finish(finish))


def begin(config: ExperimentConfig) -> None:
    """Makes a run that ends before its result."""
    with pytest.raises(RuntimeError, match="killed"):
        make_run(RunRequest(config, "none", config.name), _killed)


def _killed(_: RunRequest) -> None:
    raise RuntimeError("killed")


def test_other_data_under_the_same_name_is_another_run(shards: Path, tmp_path: Path) -> None:
    first = config_of(shards / "a" / "shards", tmp_path)
    begin(first)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["schema"] == SCHEMA
    assert stored["config"]["data"]["digests"] == list(pin_content(first).data.digests)
    with pytest.raises(CheckpointError, match=r"holds another run: data\.digests .* there, .* here"):
        begin(config_of(shards / "b" / "shards", tmp_path))
    moved = tmp_path / "elsewhere" / "under-another-name"
    shutil.copytree(shards / "a" / "shards", moved)
    begin(config_of(moved, tmp_path))  # the same data, wherever it lies


def test_repacked_shards_are_refused_where_the_run_would_go_on(shards: Path, tmp_path: Path) -> None:
    here = tmp_path / "shards"
    shutil.copytree(shards / "a" / "shards", here)
    begin(config_of(here, tmp_path / "runs"))
    shutil.rmtree(here)
    shutil.copytree(shards / "b" / "shards", here)
    with pytest.raises(CheckpointError, match=r"data\.digests"):
        begin(config_of(here, tmp_path / "runs"))


def test_two_weights_files_of_one_name_are_two(shards: Path, tmp_path: Path) -> None:
    configs = []
    for seed, place in enumerate(("one", "two", "copy of one")):
        (tmp_path / place).mkdir()
        torch.save(build("xmem-tiny", seed=seed % 2).state_dict(), tmp_path / place / "model.pth")
        configs.append(
            config_of(shards / "a/shards", tmp_path, **{"network.init": str(tmp_path / place / "model.pth")})
        )
    assert len({digest(config) for config in configs}) == 1, "before they are looked at, the name is all there is"
    one, two, again = (digest(pin_content(config)) for config in configs)
    assert one == again
    assert one != two


def test_what_is_pinned_is_in_the_checkpoint_and_a_change_of_code_is_said(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pin_content(config_of(shards / "a" / "shards", tmp_path, **{"train.steps": 4}))

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_alone(config, watcher=stop)
    state = RunFolder.of(config).checkpoints().load(2)
    assert state["config"]["data"]["digests"] == list(config.data.digests)
    assert state["versions"] == provenance.code_versions()
    events: list[dict[str, Any]] = []
    now = {**provenance.code_versions(), "torch": "9.9"}
    monkeypatch.setattr("ovos_ray.run.state.code_versions", lambda: now)
    train_alone(config, stream=local_stream(config), watcher=events.append)
    said = [event["event"] for event in events if "other code" in str(event.get("event"))]
    assert said == [f"goes on with other code: torch {state['versions']['torch']} before, 9.9 now"]


def as_before(config: ExperimentConfig) -> None:
    """Stores a configuration as version 0.1 did: without schema, and with none of the settings that came later."""
    values = to_dict(config)
    for key in (key for key, setting in settings_of(ExperimentConfig).items() if setting.added is not None):
        *groups, name = key.split(".")
        group = values
        for part in groups:
            group = group[part] or {}
        group.pop(name, None)
    values["evaluation"]["also"] = [
        f"{also['name']}={also['root']}:{also['split']}" for also in values["evaluation"]["also"]
    ]
    content = {"digest": digest(unpinned(config)), "config": values}
    RunFolder.of(config).storage.write(json.dumps(content).encode(), "config.json")


def test_a_run_of_before_is_accepted_and_pinned_from_then_on(shards: Path, tmp_path: Path) -> None:
    also = {"evaluation.also": f"other={shards / 'a' / 'dataset'}:train"}
    config = config_of(shards / "a" / "shards", tmp_path, **also)
    as_before(config)
    assert RunFolder.of(config).config() == config
    with pytest.raises(CheckpointError, match=r"method\.backward 2-step there, T-step here"):
        begin(override(config, {"method.backward": "T-step"}))
    events: list[dict[str, Any]] = []
    start(config, events)
    assert ["earlier version" in str(event.get("event")) for event in events] == [True]
    assert RunFolder.of(config).config() == pin_content(config)
    with pytest.raises(CheckpointError, match=r"data\.digests"):
        begin(override(config, {"data.shards": str(shards / "b" / "shards")}))


@dataclass(frozen=True, kw_only=True)
class Older(ExperimentConfig):
    """A configuration with a setting that is gone."""

    magic: Annotated[bool, Computes] = False


def test_a_setting_that_is_gone_neither_refuses_a_run_nor_changes_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(digest_module, "ExperimentConfig", Older)
        stored = to_store(Older())
    with pytest.raises(ConfigError, match=r"unknown configuration key 'magic'"):
        read_stored(stored["config"], stored["schema"])
    monkeypatch.setitem(digest_module.REMOVED, "magic", False)
    config = read_stored(stored["config"], stored["schema"])
    assert config == ExperimentConfig()
    assert digest(config) == stored["digest"]
    with pytest.raises(ConfigError, match=r"magic = True, a setting that is no longer there"):
        read_stored({**stored["config"], "magic": True})
    with pytest.raises(ConfigError, match=f"schema {SCHEMA + 1}"):
        read_stored(to_dict(ExperimentConfig()), SCHEMA + 1)


def test_a_setting_that_came_and_went_leaves_no_trace() -> None:
    stored = to_store(ExperimentConfig())
    plain = json.loads(json.dumps(stored["config"]))
    with_horizon = {**plain, "method": {**plain["method"], "horizon": [], "smallest_confidence": 0.0}}
    assert read_stored(with_horizon, SCHEMA) == ExperimentConfig()
    with_horizon["method"]["horizon"] = [[0.0, 3]]
    with pytest.raises(ConfigError, match=r"method.horizon = .* no longer there"):
        read_stored(with_horizon, SCHEMA)


def test_only_what_both_have_pinned_is_compared(shards: Path, tmp_path: Path) -> None:
    written = config_of(shards / "a" / "shards", tmp_path)
    assert not differences(written, pin_content(written))
    assert not differences(pin_content(written), written)
    other = pin_content(config_of(shards / "b" / "shards", tmp_path))
    assert not differences(written, other), "the name of the folder was all that was known"
    assert [line.partition(" ")[0] for line in differences(pin_content(written), other)] == ["data.digests"]
    elsewhere = override(written, {"data.shards": "/other/machine/shards", "method.backward": "T-step"})
    assert differences(written, elsewhere) == ["method.backward 2-step there, T-step here"]


def test_a_name_is_kept_only_by_what_can_run(shards: Path, tmp_path: Path) -> None:
    def no_room(_: ExperimentConfig) -> None:
        raise ConfigError("no room")

    config = config_of(shards / "a" / "shards", tmp_path)
    for bad in (override(config, {"network.init": str(tmp_path / "none.pth")}), config):
        with pytest.raises(OvosError, match=r"no room|no weights file"):
            make_run(RunRequest(bad, "none", bad.name), _killed, check_room=no_room)
    assert not RunFolder.of(config).claimed
    start(override(config, {"method.backward": "T-step"}))


# ---- pretrainings

STAGE = """
from ovos_ray.config import DataConfig, ExperimentConfig, MethodConfig

def stage() -> ExperimentConfig:
    '''Stage 0.'''
    return ExperimentConfig(data=DataConfig(source="static"), method=MethodConfig(name="supervised"))
"""


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "identity_stages.py").write_text(STAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("identity_stages", None)


def pretrained(data: Path, place: str, storage: Path) -> ExperimentConfig:
    words = f"data.shards={data / place / 'shards'}"
    return config_of(
        data / "a/shards", storage, **{"pretrain.recipe": "identity_stages.stage", "pretrain.overrides": (words,)}
    )


@pytest.mark.usefixtures("stages")
def test_two_static_sets_of_one_name_have_a_pretraining_each(shards: Path, tmp_path: Path) -> None:
    one, other = (pin(pretrained(shards, place, tmp_path / "runs")) for place in "ab")
    assert pretraining_folder(one).name != pretraining_folder(other).name
    assert digest(one) != digest(other)


@pytest.mark.usefixtures("stages")
def test_a_pretraining_of_before_is_taken_where_its_data_may_be_the_same(shards: Path, tmp_path: Path) -> None:
    config = pretrained(shards, "a", tmp_path / "runs")
    stage = pretraining_stage(pin(config), tmp_path)
    assert stage is not None
    former = override(stage, {"name": digest(unpinned(stage))})
    as_before(former)
    taken = pin(config)
    assert pretraining_folder(taken).name == former.name
    assert pretraining_stage(taken, tmp_path) == former
    other = pin(pretrained(shards, "b", tmp_path / "runs"))
    assert pretraining_folder(other).name != former.name, "the other set lies elsewhere, and both are there"
