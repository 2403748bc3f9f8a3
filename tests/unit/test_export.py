"""Weights for others: what is written, what its card says, and what it does not."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from ovos_ray import networks
from ovos_ray.cli.export import export
from ovos_ray.errors import ConfigError, MissingExtraError, WeightsError
from ovos_ray.io import write_json
from ovos_ray.run.model_card import model_card
from ovos_ray.train.load_network import load_network


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs/mine"
    folder.mkdir(parents=True)
    networks.export_weights(networks.build("xmem-tiny", seed=4), folder / "network.safetensors", "xmem-tiny")
    config: dict[str, Any] = {
        "name": "mine",
        "seed": 7,
        "network": {"name": "xmem-tiny", "init": "/home/somebody/start.pth"},
        "method": {"backward": "2-step"},
        "data": {"shards": ["/home/somebody/shards/kittens"], "clip_length": 5, "max_skip": [[0.0, 2]]},
        "evaluation": {"root": "/home/somebody/DAVIS", "split": "val"},
        "tracking": {"uri": "http://user:secret@mlflow:5000"},
        "train": {"steps": 300, "storage": "/home/somebody/runs"},
    }
    write_json(folder / "config.json", {"digest": "e27da5806467", "config": config})
    result = {"name": "mine", "digest": "e27da5806467", "steps": 300, "checkpoint": {"rule": "last", "step": 300}}
    labels = {"training": 60, "training_frames": 1200, "validation": 3, "pretraining": 0}
    write_json(folder / "result.json", result | {"scores": {"jf": 42.81, "j": 50.9, "f": 34.7}, "labels": labels})
    return folder


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_an_export_is_the_same_network_and_its_card_says_what_it_cost(run, tmp_path, suffix):
    target = tmp_path / f"kittens{suffix}"
    export(run, str(target))
    found = load_network(target, None if suffix == ".safetensors" else "xmem-tiny").state_dict()
    wanted = load_network(run).state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    card = (tmp_path / "kittens.md").read_text()
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    for text in ("60 of 1200 training frames (5.0 %)", "3 frames to choose", "J&F 42.8", "on DAVIS val", "e27da5806467",
                 digest, '"backward": "2-step"', "`kittens`", "`start.pth`"):  # fmt: skip
        assert text in card, text
    assert f"ovos-ray predict --checkpoint {target.name}" in card
    assert 'torch.export.load("kittens.encode.pt2")' in model_card(run, "kittens.pt2", "")
    assert "/home" not in card
    assert "secret" not in card
    with pytest.raises(ConfigError, match="exists, and is not replaced"):
        export(run, str(target))


def test_a_run_in_a_bucket_is_exported_as_one_on_a_disk(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    for name, place in (("disk", run), ("bucket", Path(f"file://{run}"))):
        (tmp_path / name).mkdir()
        export(place, str(tmp_path / name / "kittens.safetensors"))
    for name in ("kittens.safetensors", "kittens.md"):
        assert (tmp_path / "bucket" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes()
    with pytest.raises(WeightsError, match=f"file://{run.parent} is not a finished run"):
        export(Path(f"file://{run.parent}"), str(tmp_path / "w.pth"))
    assert not (tmp_path / "w.pth").exists()


def test_what_is_no_finished_run_or_no_name_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"--to weights\.bin"):
        export(run, "weights.bin")
    with pytest.raises(ConfigError, match="--to hub:kittens"):
        export(run, "hub:kittens")
    (run / "result.json").unlink()
    with pytest.raises(WeightsError, match="not a finished run"):
        export(run, str(tmp_path / "w.pth"))
    assert not (tmp_path / "w.pth").exists()


def test_the_hub_gets_weights_and_card_in_a_private_repository(run, monkeypatch):
    calls: list[Any] = []

    class Api:
        def create_repo(self, name: str, **options: Any) -> None:
            calls.append((name, options))

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    hub, problems = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
    hub.HfApi = Api
    problems.HfHubHTTPError = problems.LocalTokenNotFoundError = OSError
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", problems)
    export(run, "hub:me/kittens")
    assert calls == [
        ("me/kittens", {"private": True, "exist_ok": True}), ("me/kittens", ["README.md", "network.safetensors"])
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError):
        export(run, "hub:me/kittens")


def test_a_bare_file_of_another_size_says_that_the_network_is_to_be_named(tmp_path: Path) -> None:
    networks.export_weights(networks.build("xmem-tiny", seed=0), tmp_path / "bare.pth")
    with pytest.raises(WeightsError) as caught:
        load_network(tmp_path / "bare.pth")
    assert "as weights of xmem:" in caught.value.message
    assert "--network" in str(caught.value.remedy)
    load_network(tmp_path / "bare.pth", "xmem-tiny")
