"""Emergence of masks while a network trains, from the snapshots that its run has kept (Figure 6)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import decode_mask
from ovos_ray.evaluate.infer.overlay import tile
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.pictures.pictures import Gallery, Strip, or_why, still
from ovos_ray.report.pictures.stored import Buckets, place_of
from ovos_ray.report.runs import Run
from ovos_ray.storage import Storage
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


def emergence_galleries(rows: Sequence[Row], buckets: Buckets | None = None) -> tuple[Gallery, ...]:
    """Shows a few videos after more and more optimiser steps; runs with an empty reference come first.

    Args:
        rows: Configurations, best first; unfinished ones count too.
        buckets: Through which buckets are asked; None: a new one, which knows of none that is away.

    Returns:
        One each, or, where there is no picture at all, one without any that says why.
    """
    buckets = buckets or Buckets()
    found = [(row, run, place) for row in rows for run in row.runs if (place := place_of(run, "ovos.snapshots"))]
    found.sort(key=lambda item: item[0].strategy != EMPTY)
    shown: dict[str, tuple[Row, Run, str]] = {}
    for item in found:
        shown.setdefault(item[0].label, item)
    pictured: list[Gallery] = []
    remarks: list[Gallery] = []
    for row, run, place in shown.values():
        if len(pictured) < _GALLERIES:
            made = _of_run(row, run, place, buckets)
            pictured += [gallery for gallery in made if gallery.strips]
            remarks += [gallery for gallery in made if not gallery.strips]
    return tuple(pictured[:_GALLERIES] or remarks[:1])


def _of_run(row: Row, run: Run, place: str, buckets: Buckets) -> list[Gallery]:
    what, title = f"pictures of how masks emerge in {run.name}", f"while {row.label} trains"
    return or_why(
        lambda: _galleries(run, title, place, buckets),
        what,
        lambda reason: [Gallery(run.name, title, (), f"No {what}: {reason}.")],
    )


def _galleries(run: Run, title: str, place: str, buckets: Buckets) -> list[Gallery]:
    folder = buckets.ask(place, lambda: Storage(place))
    masks = buckets.ask(place, lambda: _masks_below(folder))
    part = "validation" if run.source("validation") else "evaluation"
    source, layout, split = run.source(part), run.param(f"{part}.layout") or None, run.param(f"{part}.split", "val")
    dataset = buckets.ask(source, lambda: open_dataset(source, layout=layout))
    empty = run.param("method.reference") == "empty"
    steps_of: dict[str, list[str]] = {}
    for path in sorted(masks):
        steps_of.setdefault(path.partition("/")[2], []).append(path.partition("/")[0])
    galleries = []
    for name in dataset.video_names(split):
        if not (steps := steps_of.get(name, [])):
            continue
        if len(steps) > _STRIPS:
            steps = [steps[round(i * (len(steps) - 1) / (_STRIPS - 1))] for i in range(_STRIPS)]
        video = buckets.ask(source, functools.partial(dataset.video, split, name))
        words = {f"{step}/{name}": f"after {int(step.removeprefix('step-')):,} steps" for step in steps}
        if (again := f"{steps[-1]}/{name}/again") in masks:
            words[again] = f"{words[f'{steps[-1]}/{name}']}, fed back"
        strips = [
            buckets.ask(place, functools.partial(_strip, video, folder, masks[path], text))
            for path, text in words.items()
        ]
        galleries.append(Gallery(name, title, tuple(strips), _EMPTY if empty else _GIVEN))
    return galleries


def _masks_below(folder: Storage) -> dict[str, list[str]]:
    """Returns the masks of a run's snapshots, by the folder they lie in: `step-00000500/VIDEO`, `…/VIDEO/again`."""
    found: dict[str, list[str]] = {}
    for path in folder.files():
        if path.startswith("step-") and path.endswith(".png"):
            found.setdefault(path.rpartition("/")[0], []).append(path)
    return found


def _strip(video: Video, folder: Storage, paths: Sequence[str], words: str) -> Strip:
    masks = {
        video.frame_names.index(PurePosixPath(path).stem): decode_mask(folder.read(path), folder.location(path))
        for path in paths
    }
    frames = {index: frame for index, frame in enumerate(video.images()) if index in masks}
    # The first frame holds the reference, given or empty: it says nothing about the network.
    judged = [index for index in list(masks)[1:] if index in video.masks]
    overlaps = [_overlap(masks[index] > 0, video.mask(index) > 0) for index in judged]
    score = f"J of the foreground {np.mean(overlaps):.1f}" if overlaps else ""
    return Strip(words, score, still([tile(frames[index], masks[index], _TILE_WIDTH) for index in masks]))


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    union = np.count_nonzero(one | two)
    return 100 * np.count_nonzero(one & two) / union if union else 100.0
