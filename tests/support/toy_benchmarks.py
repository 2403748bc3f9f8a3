"""All data sets of the paper in their official layouts, a few tiny videos each, and the commands that pack them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovos_ray.data.masks import encode_jpeg, encode_mask

__all__ = ["IMAGES", "PACK", "TRAINING_VIDEOS", "make_benchmarks"]

SIZE = (24, 32)
FRAMES = 12
TRAINING_VIDEOS = {"youtube_vos2018": 10, "davis2017": 2}
IMAGES = {"fss": 3, "DUTS-TR": 4, "DUTS-TE": 2, "ecssd": 2, "BIG_small": 1, "HRSOD_small": 2}
"""Photographs per static set."""

PACK: list[list[str]] = [
    ["youtube_vos2018", "--root", "YouTube2018", "--out", "shards/youtube_vos2018"],
    ["youtube_vos2018", "--root", "YouTube2018", "--labels", "all", "--out", "shards/youtube_vos2018_all"],
    ["davis2017", "--root", "DAVIS/2017", "--out", "shards/davis2017"],
    ["davis2017", "--root", "DAVIS/2017", "--labels", "all", "--out", "shards/davis2017_all"],
    *(["static_images", "--root", "static", "--split", name, "--out", f"shards/{name}"] for name in IMAGES),
]
"""As docs/reproducing.md gives them."""


def _frame(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(np.full((*SIZE, 3), 90, np.uint8)))


def _mask(path: Path, ids: Sequence[int] = (1, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SIZE, np.uint8)
    for row, object_id in enumerate(ids):
        mask[2 + 8 * row : 9 + 8 * row, 3:25] = object_id
    path.write_bytes(encode_mask(mask))


def _davis(root: Path, lists: str, videos: dict[str, list[str]], ids: Sequence[int]) -> None:
    for split, names in videos.items():
        for name in names:
            for frame in range(FRAMES):
                _frame(root / f"JPEGImages/480p/{name}/{frame:05d}.jpg")
                if split != "test-dev" or frame == 0:
                    _mask(root / f"Annotations/480p/{name}/{frame:05d}.png", ids)
        (root / "ImageSets" / lists).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _youtube(root: Path, year: int) -> None:
    training = [f"t{number}" for number in range(TRAINING_VIDEOS["youtube_vos2018"])]
    for name in [*training, "01e64dd36a"]:  # the last is one of the erroneous ones
        for frame in range(0, 5 * FRAMES, 5):
            _frame(root / f"train/JPEGImages/{name}/{frame:05d}.jpg")
            _mask(root / f"train/Annotations/{name}/{frame:05d}.png", () if (name, frame) == ("t0", 0) else (1, 2))
    videos = {}
    for number in range(2):
        name = f"v{year}{number}"
        for frame in range(11):
            _frame(root / f"all_frames/valid_all_frames/JPEGImages/{name}/{frame:05d}.jpg")
        for frame in range(0, 11, 5):
            _frame(root / f"valid/JPEGImages/{name}/{frame:05d}.jpg")
        _mask(root / f"valid/Annotations/{name}/00000.png", (1,))
        videos[name] = {"objects": {"1": {"category": "cat", "frames": ["00000", "00005", "00010"]}}}
    (root / "valid/meta.json").write_text(json.dumps({"videos": videos}))


def make_benchmarks(root: Path) -> None:
    """Makes DAVIS 2016 and 2017, YouTube-VOS 2018 and 2019 and the six static sets below a folder."""
    davis = {"train": ["bear", "bus"], "val": ["cows", "goat"]}
    _davis(root / "DAVIS/2016", "480p", davis, (255,))
    _davis(root / "DAVIS/2017/trainval", "2017", davis, (1, 2))
    _davis(root / "DAVIS/2017/test-dev", "2017", {"test-dev": ["chicken"]}, (1, 2))
    for year in (2018, 2019):
        _youtube(root / f"YouTube{year}", year)
    for name, count in IMAGES.items():
        for number in range(count):
            image = root / "static" / name / (f"class{number}/1" if name == "fss" else f"{number}")
            _frame(image.with_suffix(".jpg"))
            _mask(image.with_suffix(".png"), (255,))
