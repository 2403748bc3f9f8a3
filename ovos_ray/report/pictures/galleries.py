"""Galleries as in the paper: overlays beside the truth (Figures 4 and 5), copied first masks (Figure 7)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import TrackingError
from ovos_ray.evaluate.infer.overlay import tile
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.significance import sequence_scores
from ovos_ray.report.pictures.pictures import Gallery, Strip, animated, or_nothing, or_why, still
from ovos_ray.report.pictures.stored import Stored, frames_at, moments_of
from ovos_ray.report.pictures.traces import Trace, mean_copy_score
from ovos_ray.track.strategy import SUPERVISED

__all__ = ["choose_sequences", "copying_galleries", "overlay_galleries"]

_TILES = 5
_STRIP_WIDTH = 250
_FILM_WIDTH, _FILM_FRAMES, _FILM_MS = 320, 30, 100
_TRUE, _PREDICTED = (0, 200, 83), (230, 25, 25)
"""As in the paper's Figure 7: the truth green, the prediction red."""


def choose_sequences(stored: Sequence[Stored], wanted: Sequence[str] = ()) -> dict[str, str]:
    """Returns which sequences to look at, and why.

    Args:
        stored: What there is to show; the first chooses.
        wanted: Sequences to show instead of the chosen ones.

    Returns:
        The worst, a middling and the best sequence of the first; and, where a fully supervised network is at hand, the
        one on which it is furthest ahead.

    Raises:
        TrackingError: A wanted sequence was not scored.
    """
    if not stored:
        return {}
    scores = sequence_scores(stored[0].row)
    for name in wanted:
        if name not in scores:
            raise TrackingError(f"there is no scored sequence {name!r}", f"there are: {', '.join(sorted(scores))}")
    if wanted:
        return dict.fromkeys(wanted, "as asked for")
    order = sorted(scores, key=lambda name: scores[name])
    label = stored[0].row.label
    chosen = {order[0]: f"worst for {label}"}
    for place, why in ((len(order) // 2, "middle"), (-1, "best")):
        chosen.setdefault(order[place], f"{why} for {label}")
    supervised = [one.row for one in stored if one.row.strategy == SUPERVISED]
    one_shot = [one.row for one in stored if one.row.kind == "trial" and one.row.strategy != SUPERVISED]
    if supervised and one_shot:
        full, single = sequence_scores(supervised[0]), sequence_scores(one_shot[0])
        gaps = {name: full[name] - single[name] for name in full.keys() & single.keys()}
        if gaps:
            widest = max(sorted(gaps), key=lambda name: gaps[name])
            chosen.setdefault(widest, f"full supervision is furthest ahead, by {gaps[widest]:.1f} points")
    return chosen


def overlay_galleries(stored: Sequence[Stored], chosen: Mapping[str, str]) -> tuple[Gallery, ...]:
    """Makes the overlays of some sequences: the truth, then all predictions at hand; the first sequence also moves.

    What cannot be shown is named in its place, with the reason.

    Args:
        stored: The predictions.
        chosen: Sequences, with the reason each was chosen for.
    """
    return tuple(
        _overlays(sequence, why, stored, film=number == 0) for number, (sequence, why) in enumerate(chosen.items())
    )


def _overlays(sequence: str, why: str, stored: Sequence[Stored], *, film: bool) -> Gallery:
    return or_why(
        lambda: Gallery(sequence, why, _strips(sequence, stored, film=film)),
        f"pictures of {sequence}",
        lambda reason: Gallery(sequence, why, (), f"No pictures of {sequence}: {reason}."),
    )


def _strips(sequence: str, stored: Sequence[Stored], *, film: bool) -> tuple[Strip, ...]:
    video = stored[0].video(sequence)
    tiles = moments_of(video, _TILES)
    moments = moments_of(video, _FILM_FRAMES) if film else []
    frames = frames_at(video, {*tiles, *moments})

    def strip(label: str, score: str, run_id: str, mask: Callable[[int], UInt8Array]) -> Strip:
        masks = {index: mask(index) for index in frames}
        moving = [tile(frames[index], masks[index], _FILM_WIDTH) for index in moments]
        image = still([tile(frames[index], masks[index], _STRIP_WIDTH) for index in tiles])
        return Strip(label, score, image, animated(moving, _FILM_MS) if moving else "", run_id)

    def predicted(one: Stored) -> Strip:
        label = one.row.label
        return or_why(
            lambda: strip(label, _score_words(one, sequence), one.run.run_id, lambda index: one.mask(video, index)),
            f"masks of {sequence} of {label}",
            lambda reason: Strip(label, f"no picture: {reason}", ""),
        )

    return (strip("truth", _frame_words(video, tiles), "", video.mask), *map(predicted, stored))


def copying_galleries(
    stored: Sequence[Stored], found: Mapping[str, Mapping[str, Trace]], wanted: Sequence[str] = ()
) -> tuple[Gallery, ...]:
    """Shows the configuration that copies the first mask most, on the sequence where it does so most (Figure 7).

    Args:
        stored: The predictions.
        found: From `traces`.
        wanted: Sequences to show instead, each with the configuration that copies most there.

    Returns:
        One strip each, the truth green and the prediction red; none without traces of a trained network.
    """
    trials = [one for one in stored if one.row.kind == "trial" and one.row.label in found]
    if not trials:
        return ()

    def score(one: Stored, sequence: str) -> float:
        trace = found[one.row.label].get(sequence)
        return -np.inf if trace is None else trace.copy_score

    chosen = [(max(trials, key=lambda one: score(one, name)), name) for name in wanted]
    if not wanted:
        most = max(trials, key=lambda one: mean_copy_score(found[one.row.label]))
        chosen = [(most, max(sorted(found[most.row.label]), key=lambda name: score(most, name)))]
    made = (
        or_nothing(functools.partial(_copying, one, name, found[one.row.label]), f"picture of copying in {name}")
        for one, name in chosen
        if name in found[one.row.label]
    )
    return tuple(gallery for gallery in made if gallery is not None)


def _copying(one: Stored, sequence: str, traces: Mapping[str, Trace]) -> Gallery:
    video = one.video(sequence)
    tiles = moments_of(video, _TILES)
    frames = frames_at(video, set(tiles))
    pictures = [_outlined(frames[i], video.mask(i), one.mask(video, i), _STRIP_WIDTH) for i in tiles]
    mean = mean_copy_score(traces)
    words = (
        f"Of the configurations shown, {one.row.label} has the highest copy score ({_signed(mean)} on the whole: its "
        f"masks resemble the first mask {'more' if mean > 0 else 'less'} than the truth), of its sequences this one."
    )
    score = f"copy score {_signed(traces[sequence].copy_score)}; truth green, prediction red"
    return Gallery(sequence, "copying the first mask", (Strip(one.row.label, score, still(pictures)),), words)


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def _outlined(frame: UInt8Array, true: UInt8Array, pred: UInt8Array, width: int) -> Image.Image:
    size = (width, round(frame.shape[0] * width / frame.shape[1]))
    picture = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)).copy()
    for mask, colour in ((true, _TRUE), (pred, _PREDICTED)):
        small = np.asarray(Image.fromarray((mask > 0).astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
        picture[small > 0] = (0.6 * picture[small > 0] + 0.4 * np.array(colour)).astype(np.uint8)
        edges = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        picture[edges > 0] = colour
    return Image.fromarray(picture)


def _frame_words(video: Video, tiles: Sequence[int]) -> str:
    return "frames " + ", ".join(video.frame_names[index].lstrip("0") or "0" for index in tiles)


def _score_words(one: Stored, sequence: str) -> str:
    score = sequence_scores(one.row).get(sequence)
    return "" if score is None else f"{PRIMARY.label} {score:.1f}"
