"""The strip that a run draws of its last clip shows what training did with it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import config_of, train_alone
from synthetic_study import memory_run

from ovos_ray import networks
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.methods import one_shot
from ovos_ray.packing.pack import pack
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.pictures.cycle import ARTIFACT, cycle_gallery
from ovos_ray.report.runs import Study
from ovos_ray.run import cycle_strip as module
from ovos_ray.run.cycle_strip import cycle_strip
from ovos_ray.run.here import local_stream
from ovos_ray.train.step import TrainingModule

TILE, GAP = 180, 4


@pytest.fixture(scope="module")
def all_shards(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("all")
    pack(open_dataset(shards.parent / "dataset"), out, labels="all", split="train")
    return out


def strip_of(shards: Path, storage: Path, **changes: Any) -> tuple[Image.Image, str, list[dict[str, Any]]]:
    """The strip of an untrained network, its words, and what `propagate` was given."""
    config = config_of(shards, storage, **changes)
    network = networks.build(config.network.name, seed=1)
    calls: list[dict[str, Any]] = []
    propagate = module.propagate

    def watched(network: Any, frames: Any, masks: Any, order: Any, **more: Any) -> Any:
        calls.append({"masks": masks.clone(), "order": list(order), "frames": frames[:, list(order)].clone()})
        return propagate(network, frames, masks, order, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "propagate", watched)
        found = cycle_strip(network, next(local_stream(config).batches()), config, 0)
    assert found is not None
    return Image.open(io.BytesIO(found[0])).convert("L"), found[1], calls


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"reference_mask": "soft"}, "soft mask"),
        ({"reference_mask": "hard"}, "hard mask"),
        ({"shared_intermediate": False, "rollout_memory": "all"}, "soft mask"),
        ({"reference": "true"}, "label"),
    ],
)
def test_the_walk_back_starts_from_the_mask_and_frames_that_training_had(
    changes: dict[str, Any], start: str, all_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {f"method.{name}": value for name, value in changes.items()}
    changes |= {"method.backward": "2-step", "data.clip_length": 6}
    _, words, (*_, back) = strip_of(all_shards, tmp_path, **changes)
    assert f"from the {start} of the last frame" in words
    assert bool(((back["masks"] == 0) | (back["masks"] == 1)).all()) is (start != "soft mask")

    config = config_of(all_shards, tmp_path, **changes)
    trained: list[tuple[torch.Tensor, torch.Tensor]] = []
    propagate = one_shot.propagate

    def watched(network: Any, frames: Any, masks: Any, order: Any, **more: Any) -> Any:
        trained.append((frames[:, list(order)].clone(), masks.detach().clone()))
        return propagate(network, frames, masks, order, **more)

    monkeypatch.setattr(one_shot, "propagate", watched)
    TrainingModule(networks.build(config.network.name, seed=1), config)(next(local_stream(config).batches()), 0)
    frames, masks = trained[-1]
    assert torch.equal(back["frames"], frames[:1]), "the frames that were drawn for that step"
    assert torch.allclose(back["masks"], masks[:1], atol=1e-4)


def test_frames_that_are_skipped_on_the_way_back_are_grey(shards: Path, tmp_path: Path) -> None:
    picture, words, (_, back) = strip_of(shards, tmp_path, **{"method.backward": "2-step", "data.clip_length": 4})
    height = (picture.height - GAP) // 2
    pixels = np.asarray(picture)[height + GAP :]
    grey = [float(pixels[5:-5, t * (TILE + GAP) + 5 : t * (TILE + GAP) + TILE - 5].std()) < 2 for t in range(4)]
    assert [t for t in range(4) if not grey[t]] == sorted(back["order"])
    assert "IoU" in words


def test_an_empty_reference_carries_nothing_forward(shards: Path, tmp_path: Path) -> None:
    changes = {"method.reference": "empty", "method.empty_objects": "merge", "method.backward": "T-step"}
    _, words, (back,) = strip_of(shards, tmp_path, **changes)
    assert not torch.any(back["masks"])
    assert "from an empty mask" in words


def test_a_run_keeps_its_strip_and_the_report_shows_it(shards: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = config_of(shards, tmp_path / "runs", tracking_uri=uri)
    train_alone(config)
    client = MlflowClient(uri)
    (run,) = client.search_runs(
        [client.get_experiment_by_name(e.name).experiment_id for e in client.search_experiments()]
    )
    assert "IoU" in run.data.tags["ovos.cycle"]
    artifacts = run.info.artifact_uri
    assert (Path(artifacts.removeprefix("file://")) / ARTIFACT).is_file()
    shown = memory_run("2-step", 0, {("a", 1): (50.0, 50.0)}, tags=run.data.tags, artifact_uri=artifacts)
    (row,) = compare(Study("s", "1", uri, (shown,))).rows
    gallery = cycle_gallery(row, uri)
    assert gallery is not None
    assert gallery.strips[0].score == run.data.tags["ovos.cycle"]
    assert gallery.strips[0].image.startswith("data:image/webp;base64,")

    (Path(artifacts.removeprefix("file://")) / ARTIFACT).write_bytes(b"damaged")
    assert cycle_gallery(row, uri) is None
