"""Zips for the servers: every rule has a broken example."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.prediction import predict_dataset
from ovos_ray.evaluate.score.submission import check_submission, write_submission

SIZE = (24, 32)


def write_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if path.suffix == ".png":
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def mask(*ids: int) -> np.ndarray:
    array = np.zeros(SIZE, np.uint8)
    for row, index in enumerate(ids):
        array[2 + 6 * row : 6 + 6 * row, 3:20] = index
    return array


@pytest.fixture
def davis(tmp_path):
    root = tmp_path / "DAVIS"
    for name in ("bear", "swan"):
        for t in range(3):
            write_image(root / f"JPEGImages/480p/{name}/{t:05d}.jpg", np.full((*SIZE, 3), 90, np.uint8))
        write_image(root / f"Annotations/480p/{name}/00000.png", mask(1, 2))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/test-dev.txt").write_text("bear\nswan\n")
    folder = open_dataset(root)
    predict_dataset(copy_first_mask, folder, "test-dev", tmp_path / "out")
    return folder, tmp_path / "out", "test-dev"


@pytest.fixture
def youtube(tmp_path):
    root = tmp_path / "YouTube"
    for t in range(11):
        write_image(root / f"valid_all_frames/JPEGImages/vid/{t:05d}.jpg", np.full((*SIZE, 3), 90, np.uint8))
    (root / "valid/JPEGImages").mkdir(parents=True)
    write_image(root / "valid/Annotations/vid/00000.png", mask(3))
    objects = {"3": {"category": "x", "frames": ["00000", "00005", "00010"]}}
    (root / "valid/meta.json").write_text(json.dumps({"videos": {"vid": {"objects": objects}}}))
    folder = open_dataset(root)
    predict_dataset(copy_first_mask, folder, "valid", tmp_path / "out")
    return folder, tmp_path / "out", "valid"


def test_davis_has_the_videos_at_the_root(davis, tmp_path):
    folder, out, split = davis
    assert write_submission(out, folder, split, tmp_path / "a.zip") == 6
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"{name}/{t:05d}.png" for name in ("bear", "swan") for t in range(3)]
        image = Image.open(io.BytesIO(archive.read("swan/00002.png")))
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), mask(1, 2))
    assert check_submission(tmp_path / "a.zip", folder, split) == []
    write_submission(out, folder, split, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_youtube_vos_has_a_folder_annotations_and_the_listed_frames(youtube, tmp_path):
    folder, out, split = youtube
    write_submission(out, folder, split, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"Annotations/vid/{t:05d}.png" for t in (0, 5, 10)]


def missing(out):
    (out / "bear/00001.png").unlink()


def coloured(out):
    Image.open(out / "bear/00001.png").convert("RGB").save(out / "bear/00001.png")


def grey(out):
    Image.fromarray(mask(1, 2)).save(out / "bear/00001.png")


def small(out):
    write_image(out / "bear/00001.png", mask(1)[:12])


def unknown_id(out):
    write_image(out / "bear/00001.png", mask(1, 5))


def damaged(out):
    path = out / "bear/00001.png"
    path.write_bytes(path.read_bytes()[:80])


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (missing, r"bear/00001\.png: missing"),
        (coloured, r"bear/00001\.png: PNG of mode RGB"),
        (grey, r"bear/00001\.png: PNG of mode L"),
        (small, r"bear/00001\.png: 32 x 12 pixels, the frame has 32 x 24"),
        (unknown_id, r"bear/00001\.png: object ids \[5\], the video has \[1, 2\]"),
        (damaged, r"bear/00001\.png: damaged"),
    ],
)
def test_broken_rules_are_named_and_no_zip_is_left(davis, tmp_path, spoil, found):
    folder, out, split = davis
    spoil(out)
    with pytest.raises(EvaluationError, match=found):
        write_submission(out, folder, split, tmp_path / "zips/a.zip")
    assert list((tmp_path / "zips").iterdir()) == []


def test_zips_of_others_are_checked_too(davis, tmp_path):
    folder, out, split = davis
    write_submission(out, folder, split, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as good, zipfile.ZipFile(tmp_path / "b.zip", "w") as bad:
        for name in good.namelist():
            bad.writestr(f"results/{name}" if name == "bear/00000.png" else name, good.read(name))
        with pytest.warns(UserWarning, match="Duplicate"):
            bad.writestr("swan/00000.png", good.read("swan/00000.png"))
        bad.writestr("__MACOSX/._swan", b"")
    assert check_submission(tmp_path / "b.zip", folder, split) == [
        "bear/00000.png: missing",
        "results/bear/00000.png: not asked for",
        "__MACOSX/._swan: not asked for",
        "swan/00000.png: twice in the zip",
    ]
    (tmp_path / "c.zip").write_bytes(b"no zip")
    assert "no zip file" in check_submission(tmp_path / "c.zip", folder, split)[0]
