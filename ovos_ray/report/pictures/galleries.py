"""The paper's pictures from our runs: overlays beside the truth (Figures 4 and 5), copied first masks (Figure 7)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ovos_ray.data.folders.video import Video
from ovos_ray.errors import MissingExtraError, TrackingError
from ovos_ray.evaluate.infer.overlay import OverlayWriter
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.report.numbers.significance import sequence_scores
from ovos_ray.report.pictures.pictures import Gallery, Strip, animated, still, tile
from ovos_ray.report.pictures.stored import UNREADABLE, Stored
from ovos_ray.report.pictures.traces import Trace, mean_copy_score
from ovos_ray.track.strategy import SUPERVISED

__all__ = ["choose_sequences", "copying_gallery", "overlay_galleries", "write_films"]

_log = logging.getLogger(__name__)
_TILES = 5
_STRIP_WIDTH = 250
_FILM_WIDTH, _FILM_FRAMES, _FILM_MS = 320, 30, 100
_VIDEO_WIDTH, _VIDEO_FRAMES, _VIDEO_RATE = 480, 120, 10
_CAPTION = 22
_TRUE, _PREDICTED = (0, 200, 83), (230, 25, 25)
"""As in the paper's Figure 7: the truth green, the prediction red."""

UInt8Array = npt.NDArray[np.uint8]


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


def overlay_galleries(stored: Sequence[Stored], chosen: Mapping[str, str], *, films: int = 1) -> tuple[Gallery, ...]:
    """Makes the overlays of some sequences: the truth, then all predictions at hand.

    Args:
        stored: The predictions.
        chosen: Sequences, with the reason each was chosen for.
        films: Number of sequences that also get an animated overlay per strip.
    """
    made = []
    for number, (sequence, why) in enumerate(chosen.items()):
        try:
            made.append(Gallery(sequence, why, _strips(sequence, stored, film=number < films)))
        except UNREADABLE as error:
            _log.warning("no pictures of %s: %s", sequence, error)
    return tuple(made)


def _strips(sequence: str, stored: Sequence[Stored], *, film: bool) -> tuple[Strip, ...]:
    video = stored[0].video(sequence)
    tiles = _moments(video, _TILES)
    moments = _moments(video, _FILM_FRAMES) if film else []
    frames = _frames(video, {*tiles, *moments})
    strips = []
    for one in (None, *stored):
        masks = {index: video.mask(index) if one is None else one.mask(video, index) for index in frames}
        moving = [tile(frames[index], masks[index], _FILM_WIDTH) for index in moments]
        strips.append(
            Strip(
                "truth" if one is None else one.row.label,
                _frame_words(video, tiles) if one is None else _score_words(one, sequence),
                still([tile(frames[index], masks[index], _STRIP_WIDTH) for index in tiles]),
                animated(moving, _FILM_MS) if moving else "",
                "" if one is None else one.run.run_id,
            )
        )
    return tuple(strips)


def copying_gallery(stored: Sequence[Stored], found: Mapping[str, Mapping[str, Trace]]) -> Gallery | None:
    """Shows the configuration that copies the first mask most, on the sequence where it does so most (Figure 7).

    Args:
        stored: The predictions.
        found: From `traces`.

    Returns:
        One strip, the truth green and the prediction red; None without traces of a trained network.
    """
    trials = [one for one in stored if one.row.kind == "trial" and one.row.label in found]
    if not trials:
        return None
    worst = max(trials, key=lambda one: mean_copy_score(dict(found[one.row.label])))
    sequences = found[worst.row.label]
    sequence = max(sorted(sequences), key=lambda name: sequences[name].copy_score)
    score = sequences[sequence].copy_score
    try:
        video = worst.video(sequence)
        tiles = _moments(video, _TILES)
        frames = _frames(video, set(tiles))
        pictures = [_outlined(frames[i], video.mask(i), worst.mask(video, i), _STRIP_WIDTH) for i in tiles]
    except UNREADABLE as error:
        _log.warning("no picture of copying: %s", error)
        return None
    mean = mean_copy_score(dict(sequences))
    words = (
        f"Of the configurations shown, {worst.row.label} has the highest copy score ({_signed(mean)} on the whole: its "
        f"masks resemble the first mask {'more' if mean > 0 else 'less'} than the truth), of its sequences this one."
    )
    strip = Strip(worst.row.label, f"copy score {_signed(score)}; truth green, prediction red", still(pictures))
    return Gallery(sequence, "copying the first mask", (strip,), words)


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def write_films(stored: Sequence[Stored], chosen: Mapping[str, str], out: Path) -> list[Path]:
    """Writes one MP4 a sequence, the truth and all predictions side by side; none where PyAV is not installed."""
    written = []
    for old in out.glob("*.mp4"):
        old.unlink()  # of an earlier report, which may have shown other sequences
    for sequence in chosen:
        path = out / f"{sequence.replace('/', '-')}.mp4"
        try:
            writer = OverlayWriter(path, _VIDEO_RATE)
            complete = False
            try:
                for picture in _film(stored, sequence):
                    writer.add(picture)
                complete = True
            finally:
                writer.close(keep=complete)
            written.append(path)
        except MissingExtraError as error:
            _log.warning("no MP4s: %s", error)
            return []
        except UNREADABLE as error:
            _log.warning("no film of %s: %s", sequence, error)
    return written


def _film(stored: Sequence[Stored], sequence: str) -> Iterator[UInt8Array]:
    video = stored[0].video(sequence)
    moments = set(_moments(video, _VIDEO_FRAMES))
    labels = ["truth", *(one.row.label for one in stored)]
    columns = 2 if len(labels) > 3 else len(labels)
    for index, frame in enumerate(video.images()):
        if index not in moments:
            continue
        masks = [video.mask(index), *(one.mask(video, index) for one in stored)]
        tiles = [tile(frame, mask, _VIDEO_WIDTH) for mask in masks]
        width, height = tiles[0].width, tiles[0].height + _CAPTION
        sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "#202020")
        draw = ImageDraw.Draw(sheet)
        for place, (label, picture) in enumerate(zip(labels, tiles, strict=True)):
            x, y = place % columns * width, place // columns * height
            draw.text((x + 6, y + 5), label.replace("·", "/").encode("latin-1", "replace").decode("latin-1"))
            sheet.paste(picture, (x, y + _CAPTION))
        yield np.asarray(sheet)


def _moments(video: Video, most: int) -> list[int]:
    """Labelled frames, evenly spread, first and last among them."""
    labelled = sorted(video.masks)
    if len(labelled) <= most:
        return labelled
    return [labelled[round(i * (len(labelled) - 1) / (most - 1))] for i in range(most)]


def _frames(video: Video, wanted: set[int]) -> dict[int, UInt8Array]:
    return {index: frame for index, frame in enumerate(video.images()) if index in wanted}


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
