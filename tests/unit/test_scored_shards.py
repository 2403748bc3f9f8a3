"""Shards of a split are predicted and scored as its folder is, to the digit; what is fetched is whole and kept."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from davis_folder import make_davis

from ovos_ray import networks
from ovos_ray.config import EvaluationConfig, ExperimentConfig, ValidationConfig, override
from ovos_ray.config.digest import differences, digest
from ovos_ray.config.recipes import make
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import decode_mask, encode_mask
from ovos_ray.data.shards.shard_folder import ShardFolder
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.evaluate.evaluation import benchmarks, check_benchmarks, evaluate_network
from ovos_ray.packing.pack import pack
from ovos_ray.run.checks import check_settings, check_validation
from ovos_ray.run.labels import count_labels
from ovos_ray.run.pin import pin_content
from ovos_ray.run.snapshots import snapshot_videos

LAYOUTS = ("davis2017", "davis2016", "youtube-vos")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def dataset(root: Path, layout: str) -> Path:
    """The same videos in three layouts, with the split `val`."""
    make_davis(root, num_videos=2)
    sets = root / "ImageSets"
    if layout == "youtube-vos":
        shutil.rmtree(sets)
        for part in ("JPEGImages", "Annotations"):
            (root / "valid").mkdir(exist_ok=True)
            shutil.move(root / part / "480p", root / "valid" / part)
            (root / part).rmdir()
        return root
    for frame in (0, 1):  # DAVIS defines objects in the first annotated frame, and this one shows none
        (root / f"Annotations/480p/v1/{frame:05d}.png").unlink()
    (sets / "2017").rename(sets / ("2017" if layout == "davis2017" else "480p"))
    lists = next(sets.iterdir())
    (lists / "train.txt").rename(lists / "val.txt")
    if layout == "davis2016":
        for path in root.glob("Annotations/480p/*/*.png"):
            path.write_bytes(encode_mask(np.where(decode_mask(path) > 0, 255, 0).astype(np.uint8)))
    return root


def shards_of(folder: Path, out: Path, labels: Literal["first", "all"] = "all", split: str = "val") -> Path:
    pack(open_dataset(folder), out, labels=labels, split=split)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_scores_of_shards_are_those_of_the_folder(tmp_path: Path, layout: str) -> None:
    folder = dataset(tmp_path / "data", layout)
    shards = shards_of(folder, tmp_path / "shards")
    network = networks.build("stcn-tiny", seed=1)
    there, here = (evaluate_network(network, root=str(root), split="val") for root in (folder, shards))
    assert here.protocol == there.protocol == layout
    assert here.rows == there.rows
    assert here.to_csv() == there.to_csv()
    other = evaluate_network(networks.build("stcn-tiny", seed=2), root=str(shards), split="val")
    assert other.rows != here.rows, "the control"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_that_names_no_protocol_is_scored_by_that_of_its_datasets_layout(tmp_path: Path, layout: str) -> None:
    folder = dataset(tmp_path / "data", layout)
    shards = shards_of(folder, tmp_path / "shards")
    for source in (f"evaluation.root={folder}", f"evaluation.shards={shards}"):
        written = override(ExperimentConfig(), [source])
        pinned = pin_content(written)
        assert pinned.evaluation.protocol == layout
        (benchmark,), (by_itself,) = benchmarks(pinned.evaluation), benchmarks(written.evaluation)
        assert (benchmark.protocol, by_itself.protocol) == (layout, None)
        named = override(written, ["evaluation.protocol=davis2017"])
        assert pin_content(named) == named, "what was asked for stays"
        # `davis2017` was the default: its runs stay what they are, and those of others are told from them.
        assert digest(written) == digest(named)
        assert (digest(pinned) == digest(named)) == (layout == "davis2017")
        expected = [] if layout == "davis2017" else [f"evaluation.protocol davis2017 there, {layout} here"]
        assert differences(named, pinned) == expected


def test_a_driver_that_does_not_see_the_data_leaves_the_protocol_open(tmp_path: Path) -> None:
    written = override(ExperimentConfig(), [f"evaluation.root={tmp_path / 'data'}"])
    assert pin_content(written) == written
    dataset(tmp_path / "data", "youtube-vos")
    pinned = pin_content(written)
    assert pinned != written
    assert differences(pinned, written) == differences(written, pinned) == []
    other = override(pinned, ["evaluation.protocol=davis2016"])
    assert differences(pinned, other) == ["evaluation.protocol youtube-vos there, davis2016 here"], "the control"


def test_a_video_is_fetched_once_and_only_when_it_is_opened(tmp_path: Path, cache: Path) -> None:
    shards = shards_of(dataset(tmp_path / "data", "davis2017"), tmp_path / "shards")
    folder = open_dataset(shards)
    assert isinstance(folder, ShardFolder)
    assert folder.video_names("val") == ("v0", "v1")
    with pytest.raises(DataError, match=f"{shards}: no split 'test'; there are: val"):
        folder.video_names("test")
    assert folder.outline("val", "v1") == (6, (2, 3, 4, 5))
    assert not cache.exists()
    video = folder.video("val", "v0")
    assert {path.name for path in cache.rglob("v*")} == {"v0", "v0.lock"}
    for path in shards.glob("*.parquet"):
        path.unlink()
    again = open_dataset(shards).video("val", "v0")
    assert again == video
    assert (again.mask(0) == video.mask(0)).all()
    with pytest.raises(DataError, match="missing"):
        open_dataset(shards).video("val", "v1")
    assert not list(cache.rglob("Annotations/v1")), "whole or absent"
    assert not list(cache.rglob("JPEGImages/v1"))


def test_what_arrived_damaged_is_not_kept(tmp_path: Path, cache: Path) -> None:
    shards = shards_of(dataset(tmp_path / "data", "davis2017"), tmp_path / "shards")
    path = next(shards.glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xd8\xff") + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_dataset(shards).video("val", "v0")
    assert not list(cache.rglob("*.jpg"))


def config_of(**settings: object) -> ExperimentConfig:
    return override(make("trainables.one_shot", ExperimentConfig), settings)


def test_shards_with_one_label_a_video_cannot_be_scored(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", "davis2017")
    shards = shards_of(folder, tmp_path / "shards", "first")
    with pytest.raises(DataError, match=r"evaluation\.shards.*\n.*--labels all"):
        check_benchmarks(EvaluationConfig(shards=str(shards)))
    check_benchmarks(EvaluationConfig(root=str(folder)))


def test_a_split_is_read_from_one_place_and_older_digests_stay() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.root=none or evaluation\.shards=none"):
        check_settings(config_of(**{"evaluation.root": "a", "evaluation.shards": "s3://b/c"}))
    plain = config_of()
    assert digest(dataclasses.replace(plain, validation=ValidationConfig(shards=None))) == digest(plain)
    assert digest(config_of(**{"evaluation.shards": "s3://b/c"})) != digest(plain)
    assert digest(config_of(**{"evaluation.shards": "/x/c"})) == digest(config_of(**{"evaluation.shards": "s3://b/c"}))


def test_validation_on_shards_counts_its_labels_and_chooses_by_nothing_that_is_reported(
    tmp_path: Path, cache: Path
) -> None:
    folder = dataset(tmp_path / "data", "davis2017")
    shards = str(shards_of(folder, tmp_path / "shards"))
    settings = {"data.shards": (shards,), "validation.shards": shards, "validation.every": 1}
    config = config_of(**settings, **{"validation.select_best": True})
    assert (count_labels(config).validation.labelled_frames, count_labels(config).validation.total_frames) == (10, 12)
    for reported in ("evaluation.shards", "evaluation.root"):
        value = shards if reported == "evaluation.shards" else str(folder)
        with pytest.raises(ConfigError, match="10 masks that are reported too"):
            check_validation(override(config, {reported: value}))
    other = dataset(tmp_path / "other", "davis2017")
    check_validation(override(config, {"evaluation.root": str(other)}))
    assert not cache.exists(), "nothing was fetched for that"
    assert [video.name for video in snapshot_videos(config)] == ["v0", "v1"]
