"""Emergence of masks while a network trains, from the snapshots that its run has kept (Figure 6)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import decode_mask
from ovos_ray.evaluate.infer.overlay import tile
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.pictures.pictures import Gallery, Strip, or_nothing, still
from ovos_ray.report.pictures.stored import local_folder
from ovos_ray.report.runs import Run
from ovos_ray.track.strategy import EMPTY

__all__ = ["emergence_galleries"]

_STRIPS, _GALLERIES = 6, 3
_TILE_WIDTH = 250
_EMPTY = (
    "Trained and started here without any reference: what is segmented, the network has learned from one label per "
    "video. Fed back: its own last mask is the reference of a walk back to the first frame, and what arrives there "
    "that of the way forward again."
)
_GIVEN = "The first mask is given. Where later masks keep its shape and place, the network copies."


def emergence_galleries(rows: Sequence[Row]) -> tuple[Gallery, ...]:
    """Shows a few videos after more and more optimiser steps; runs with an empty reference come first.

    Of `rows`, best first, unfinished ones count too.
    """
    found = [(row, run, folder) for row in rows for run in row.runs if (folder := local_folder(run, "ovos.snapshots"))]
    found.sort(key=lambda item: item[0].strategy != EMPTY)
    shown: dict[str, tuple[Row, Run, Path]] = {}
    for item in found:
        shown.setdefault(item[0].label, item)
    galleries: list[Gallery] = []
    for row, run, folder in shown.values():
        make = functools.partial(_galleries, row, run, folder)
        galleries += or_nothing(make, f"pictures of how masks emerge in {run.name}") or []
    return tuple(galleries[:_GALLERIES])


def _galleries(row: Row, run: Run, folder: Path) -> list[Gallery]:
    part = "validation" if run.source("validation") else "evaluation"
    layout = run.param(f"{part}.layout") or None
    dataset = open_dataset(run.source(part), layout=layout)
    split = run.param(f"{part}.split", "val")
    empty = run.param("method.reference") == "empty"
    galleries = []
    for name in dataset.video_names(split):
        steps = sorted(path.parent for path in folder.glob(f"step-*/{name}") if any(path.glob("*.png")))
        if not steps:
            continue
        if len(steps) > _STRIPS:
            steps = [steps[round(i * (len(steps) - 1) / (_STRIPS - 1))] for i in range(_STRIPS)]
        video = dataset.video(split, name)
        words = [f"after {int(step.name.removeprefix('step-')):,} steps" for step in steps]
        strips = [_strip(video, step / name, text) for step, text in zip(steps, words, strict=True)]
        if (again := steps[-1] / name / "again").is_dir():
            strips.append(_strip(video, again, f"{words[-1]}, fed back"))
        galleries.append(Gallery(name, f"while {row.label} trains", tuple(strips), _EMPTY if empty else _GIVEN))
    return galleries


def _strip(video: Video, folder: Path, words: str) -> Strip:
    masks = {video.frame_names.index(path.stem): decode_mask(path) for path in sorted(folder.glob("*.png"))}
    frames = {index: frame for index, frame in enumerate(video.images()) if index in masks}
    # The first frame holds the reference, given or empty: it says nothing about the network.
    judged = [index for index in list(masks)[1:] if index in video.masks]
    overlaps = [_overlap(masks[index] > 0, video.mask(index) > 0) for index in judged]
    score = f"J of the foreground {np.mean(overlaps):.1f}" if overlaps else ""
    return Strip(words, score, still([tile(frames[index], masks[index], _TILE_WIDTH) for index in masks]))


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    union = np.count_nonzero(one | two)
    return 100 * np.count_nonzero(one & two) / union if union else 100.0
