from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from davis_folder import make_davis
from PIL import Image
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.data.masks import encode_mask
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.packing.pack import pack


def _corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def _resize(path: Path) -> None:
    Image.new("RGB", (40, 40)).save(path)


def _only_first_frame(path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        for other in (path.parents[2] / kind / "480p" / "v1").iterdir():
            if other.stem != "00000":
                other.unlink()
    shutil.copy(path.parents[2] / "Annotations/480p/v0/00000.png", path.parents[2] / "Annotations/480p/v1/00000.png")


@pytest.mark.parametrize(
    ("path", "damage", "message"),
    [
        ("JPEGImages/480p/v1/00003.jpg", _corrupt, r"v1/00003\.jpg: damaged image"),
        ("JPEGImages/480p/v1/00003.jpg", lambda path: path.write_bytes(b"text"), r"v1/00003\.jpg: not an image"),
        ("JPEGImages/480p/v1/00003.jpg", lambda path: path.write_bytes(b""), r"v1/00003\.jpg: not an image"),
        ("JPEGImages/480p/v1/00003.jpg", _resize, "frame 00003 of 40 x 40 pixels after frames of 80 x 48"),
        ("JPEGImages/480p/v1/00003.jpg", Path.unlink, r"v1/00003\.png: mask of a frame that is missing"),
        ("JPEGImages/480p/v1", shutil.rmtree, "missing frames of video 'v1'"),
        ("Annotations/480p/v1", shutil.rmtree, "video 'v1' .* has no mask"),
        ("Annotations/480p/v1/00002.png", _resize, r"00002\.png: mask of mode RGB.*\(save masks as PNG"),
        (
            "Annotations/480p/v1/00002.png",
            lambda path: path.write_bytes(path.read_bytes()[:-40]),
            r"00002\.png: damaged",
        ),
        (
            "Annotations/480p/v1/00002.png",
            lambda path: path.write_bytes(encode_mask(np.ones((9, 9), np.uint8))),
            r"00002\.png: mask of 9 x 9 pixels for a frame of 80 x 48",
        ),
        ("JPEGImages/480p/v1", _only_first_frame, "has one frame"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path: Path, path: str, damage: Any, message: str) -> None:
    root = make_davis(tmp_path / "davis")
    damage(root / path)
    with pytest.raises(DataError, match=message) as error:
        pack(open_dataset(root, "davis2017"), tmp_path / "shards")
    assert "leave their videos out (--exclude VIDEO)" in (error.value.remedy or "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["davis"]
    index = pack(open_dataset(root, "davis2017"), tmp_path / "shards", exclude=["v1"])
    assert [video.name for video in index.videos] == ["v0", "v2"]
    assert verify(tmp_path / "shards") == []


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    root = make_davis(tmp_path / "davis")
    _corrupt(root / "JPEGImages/480p/v0/00001.jpg")
    _corrupt(root / "JPEGImages/480p/v2/00004.jpg")
    with pytest.raises(DataError, match=r"2 problem\(s\)(.|\n)*v0/00001(.|\n)*v2/00004"):
        pack(open_dataset(root), tmp_path / "shards")


def test_an_unknown_or_total_exclusion_is_refused(davis: DatasetFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video 'cow'"):
        pack(davis, tmp_path / "shards", exclude=["cow"])
    with pytest.raises(DataError, match="every video"):
        pack(davis, tmp_path / "shards", exclude=["v0", "v1", "v2"])


@pytest.mark.parametrize(("option", "value", "remedy"), [("labels", "some", "all"), ("label-frame", "last", "20")])
def test_a_choice_of_labels_that_there_is_not_is_answered_with_those_there_are(
    tmp_path: Path, option: str, value: str, remedy: str
) -> None:
    arguments = ["pack", "davis2017", "--root", str(tmp_path), "--out", str(tmp_path / "shards"), f"--{option}", value]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert f"--{option} {value!r} is neither" in result.exception.message
    assert f"--{option} {remedy}" in (result.exception.remedy or "")
