"""What the masks look like: overlays of stored predictions beside the truth, and how much they copy the first mask.

Nothing is predicted here. A run says where its masks lie (tag `ovos.predictions`) and its configuration says which
videos they belong to; a run whose files are not on this machine gets no pictures.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovos_ray.data.layout import open_dataset
from ovos_ray.data.masks import decode_mask
from ovos_ray.data.video import Video
from ovos_ray.errors import DataError
from ovos_ray.evaluate.overlay import overlay
from ovos_ray.track.comparison import Row
from ovos_ray.track.significance import sequence_scores
from ovos_ray.track.study import Run

__all__ = ["Gallery", "Strip", "Trace", "decode", "galleries", "side_by_side", "tile", "traces"]

_log = logging.getLogger(__name__)
_FRAMES = 5
_STRIP_WIDTH, _GAP = 250, 4
_TRACE_FRAMES = 30
"""Frames of a sequence that a trace samples at most, evenly."""
_FILM_WIDTH, _FILM_FRAMES, _FILM_MS = 320, 30, 100

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """Some frames of one video under one mask source.

    Attributes:
        label: Whose masks.
        score: J&F of the sequence in percent, None for the truth.
        image: WebP, frames side by side, as data URI.
        film: Animated WebP as data URI, or empty.
        run_id: The MLflow run that predicted the masks, empty for the truth.
    """

    label: str
    score: float | None
    image: str
    film: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Gallery:
    """One sequence: the truth and some configurations.

    Attributes:
        sequence: Its name.
        why: Why it was chosen, such as `worst for …`.
        strips: Truth first.
    """

    sequence: str
    why: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Trace:
    """Similarity of one sequence's predictions over (a sample of) its labelled frames, mean over objects, percent.

    Attributes:
        truth: J of each prediction against the true mask.
        first: J of each prediction against the first mask, which is what copying would give.
    """

    truth: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]

    @property
    def copy_score(self) -> float:
        """Mean of `first` minus mean of `truth`, in points: above zero, predictions resemble the first mask more."""
        return float(self.first.mean() - self.truth.mean())


def _predictions(run: Run) -> Path | None:
    folder = Path(run.tags.get("ovos.predictions", ""))
    return folder if folder.is_absolute() and folder.is_dir() else None


def _video(run: Run, sequence: str) -> Video:
    root, layout = run.param("evaluation.root"), run.param("evaluation.layout") or None
    return open_dataset(root, layout=layout).video(run.param("evaluation.split", "val"), sequence)


def _illustrated(row: Row) -> Run | None:
    """The first finished run of a row whose predictions are at hand."""
    return next((run for run in row.finished if run.scores and _predictions(run) is not None), None)


def traces(rows: Sequence[Row]) -> dict[str, dict[str, Trace]]:
    """Returns how the predictions of each row's first seed resemble the truth and the first mask.

    Args:
        rows: Configurations, then baselines, which were scored on the same videos as the first row.

    Returns:
        By label of the row, by sequence; without the rows whose predictions are not at hand.
    """
    shown = [(row, run) for row in rows if (run := _illustrated(row)) is not None]
    found: dict[str, dict[str, Trace]] = {}
    for row, run in shown:
        scored = run if run.param("evaluation.root") else shown[0][1]
        for sequence in dict.fromkeys(sequence for sequence, _ in run.scores):
            try:
                found.setdefault(row.label, {})[sequence] = _trace(run, scored, sequence)
            except (DataError, OSError) as error:
                _log.warning("no trace of %s of %s: %s", sequence, row.label, error)
                break
    return {label: sequences for label, sequences in found.items() if sequences}


def _trace(run: Run, scored: Run, sequence: str) -> Trace:
    video, folder = _video(scored, sequence), _predictions(run)
    assert folder is not None
    merged = scored.param("evaluation.protocol") == "davis2016"
    names = video.frame_names
    start = video.first_label
    first = _small(video.mask(start), merged)
    objects = [int(index) for index in np.unique(first) if index]
    truth, copied = [], []
    later = [index for index in video.masks if index > start]
    for index in later[:: -(-len(later) // _TRACE_FRAMES) or 1]:
        pred = _small(decode_mask(folder / sequence / f"{names[index]}.png"), merged)
        true = _small(video.mask(index), merged)
        truth.append(np.mean([_iou(pred == o, true == o) for o in objects]))
        copied.append(np.mean([_iou(pred == o, first == o) for o in objects]))
    if not truth:
        raise DataError(f"{sequence} has no mask after the first")
    return Trace(100 * np.array(truth), 100 * np.array(copied))


def _small(mask: UInt8Array, merged: bool) -> UInt8Array:
    """Every second pixel is enough to draw a curve with, at a quarter of the time."""
    half = mask[::2, ::2]
    return np.minimum(half, 1) if merged else half


def _iou(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0


def galleries(rows: Sequence[Row], *, films: int = 1) -> tuple[Gallery, ...]:
    """Makes overlays of the first row's worst, middle and best sequence, for all rows with predictions at hand.

    Args:
        rows: What to show under the truth, the row that chooses first.
        films: Number of sequences that also get an animated overlay per row.
    """
    shown = [(row, run) for row in rows if (run := _illustrated(row)) is not None]
    if not shown or shown[0][0] is not rows[0]:
        return ()
    scores = sequence_scores(rows[0])
    order = sorted(scores, key=lambda name: scores[name])
    chosen = {order[-1]: "best", order[len(order) // 2]: "middle", order[0]: "worst"}
    made = []
    for number, (sequence, why) in enumerate(sorted(chosen.items(), key=lambda item: scores[item[0]])):
        try:
            strips = _strips(sequence, shown, film=number < films)
            made.append(Gallery(sequence, f"{why} for {rows[0].label}", strips))
        except (DataError, OSError) as error:
            _log.warning("no pictures of %s: %s", sequence, error)
    return tuple(made)


def _strips(sequence: str, shown: Sequence[tuple[Row, Run]], *, film: bool) -> tuple[Strip, ...]:
    video = _video(shown[0][1], sequence)
    frames = list(video.images())
    labelled = sorted(video.masks)
    tiles = [labelled[round(i * (len(labelled) - 1) / (_FRAMES - 1))] for i in range(_FRAMES)]
    step = -(-len(labelled) // _FILM_FRAMES)
    moments = labelled[::step] if film else []

    def strip(label: str, score: float | None, mask_of: Callable[[int], UInt8Array], run_id: str = "") -> Strip:
        still = [tile(frames[index], mask_of(index), _STRIP_WIDTH) for index in tiles]
        moving = [tile(frames[index], mask_of(index), _FILM_WIDTH) for index in moments]
        film = _animated(moving, step * _FILM_MS) if moving else ""
        return Strip(label, score, side_by_side(still), film, run_id)

    strips = [strip("truth", None, video.mask)]
    for row, run in shown:
        folder = _predictions(run)
        assert folder is not None
        masks = {index: folder / sequence / f"{video.frame_names[index]}.png" for index in {*tiles, *moments}}
        score = sequence_scores(row).get(sequence)
        strips.append(strip(row.label, score, lambda index, at=masks: decode_mask(at[index]), run.run_id))  # type: ignore[misc]
    return tuple(strips)


def tile(frame: UInt8Array, mask: UInt8Array, width: int) -> Image.Image:
    """Returns a frame (H, W, 3) with its mask (H, W) drawn in, scaled first so that outlines are equally wide."""
    size = (width, round(frame.shape[0] * width / frame.shape[1]))
    small = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    ids = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return Image.fromarray(overlay(np.asarray(small), np.asarray(ids)))


def side_by_side(tiles: Sequence[Image.Image]) -> str:
    """Returns tiles in a row as a WebP data URI."""
    width = tiles[0].width + _GAP
    strip = Image.new("RGB", (width * len(tiles) - _GAP, max(tile.height for tile in tiles)), "#808080")
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * width, 0))
    return _data_uri(strip, quality=75)


def _animated(images: Sequence[Image.Image], frame_ms: int) -> str:
    return _data_uri(
        images[0], quality=50, method=2, save_all=True, append_images=images[1:], duration=frame_ms, loop=0
    )


def _data_uri(image: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def decode(data_uri: str) -> Image.Image:
    """Returns the picture in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))).convert("RGB")
