"""Folders of masks to be scored, small enough to be scored by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["SIZE", "disk", "iou", "make_davis_masks", "make_youtube_masks", "save", "two_objects"]

SIZE = (40, 60)


def save(path: Path, mask: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.astype(np.uint8))
    if mode == "P":
        image.putpalette([c for i in range(256) for c in (i, 255 - i, (7 * i) % 256)])
    else:
        image = image.convert(mode)
    image.save(path)


def disk(y: int, x: int, radius: int = 8) -> np.ndarray:
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def two_objects(t: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[disk(12, 12 + 2 * t)] = 1
    mask[disk(28, 45 - 2 * t)] = 2
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def make_davis_masks(folder: Path) -> tuple[Path, Path]:
    """Predictions and truth of two sequences of six frames; predictions are the truth, one pixel to the right."""
    pred, gt = folder / "pred", folder / "gt"
    for name in ("bear", "swan"):
        for t in range(6):
            save(gt / name / f"{t:05d}.png", two_objects(t))
            save(pred / name / f"{t:05d}.png", np.roll(two_objects(t), 1, axis=1))
    return pred, gt


def make_youtube_masks(tmp_path: Path) -> tuple[Path, Path]:
    """One video of five annotated frames: object 2 (a bird) from the start, object 7 (an okapi) from frame 10 on."""
    pred, gt = tmp_path / "pred/Annotations/vid", tmp_path / "valid/Annotations/vid"
    for t in range(5):
        mask = np.where(disk(12, 12 + 2 * t), 2, 0)
        if t >= 2:
            mask[disk(28, 45)] = 7
        save(gt / f"{5 * t:05d}.png", mask)
        save(pred / f"{5 * t:05d}.png", np.roll(np.where(mask == 2, 2, 0), 2, axis=1) + np.where(mask == 7, 7, 0))
    frames = [f"{5 * t:05d}" for t in range(5)]
    objects = {"2": {"category": "bird", "frames": frames}, "7": {"category": "okapi", "frames": frames[2:]}}
    (tmp_path / "valid/meta.json").write_text(json.dumps({"videos": {"vid": {"objects": objects}}}))
    return tmp_path / "pred", tmp_path / "valid"
