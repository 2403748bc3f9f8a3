"""Stored predictions: where the masks lie that a run has predicted, and which video they belong to.

Nothing here predicts. A run says where its masks are (tag `ovos.predictions`) and its configuration says what they are
masks of. They lie in a folder on this machine, or in a bucket as one archive a video, of which only those are fetched
whose pictures are shown. A run whose files are on another machine gets no pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import decode_mask
from ovos_ray.errors import StorageError
from ovos_ray.evaluate.infer.mask_archive import MaskArchives
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.runs import Run
from ovos_ray.storage import Storage, location_of

__all__ = ["Buckets", "Stored", "frames_at", "in_bucket", "moments_of", "place_of", "stored_predictions"]

_T = TypeVar("_T")


class Buckets:
    """What a report asks of buckets. One that cannot be reached is not asked again, as each time takes minutes."""

    def __init__(self) -> None:
        self._away: dict[str, StorageError] = {}

    def ask(self, location: str, request: Callable[[], _T]) -> _T:
        """Returns the answer to a request.

        Raises:
            StorageError: The bucket of this location cannot be reached, now or before.
        """
        bucket = urlsplit(location).netloc or location
        if bucket in self._away:
            raise StorageError(*self._away[bucket].args)
        try:
            return request()
        except StorageError as error:
            self._away[bucket] = error
            raise


@dataclass(frozen=True)
class Stored:
    """The predictions of one finished run of a configuration.

    Attributes:
        row: The configuration.
        run: The run.
        scored: The run whose configuration names the dataset; baselines have none of their own.
        place: The masks: a folder with SEQUENCE/FRAME.png, or one in a bucket with SEQUENCE.zip.
        buckets: Through which buckets are asked.
    """

    row: Row
    run: Run
    scored: Run
    place: str
    buckets: Buckets

    @property
    def sequences(self) -> tuple[str, ...]:
        """What was scored, in order."""
        return tuple(dict.fromkeys(sequence for sequence, _ in self.run.scores))

    @property
    def merged(self) -> bool:
        """Whether all objects count as one."""
        return self.scored.param("evaluation.protocol") == "davis2016"

    def video(self, sequence: str) -> Video:
        """Opens the video of a sequence."""
        root, layout = self.scored.source("evaluation"), self.scored.param("evaluation.layout") or None
        split = self.scored.param("evaluation.split", "val")
        return self.buckets.ask(root, lambda: open_dataset(root, layout=layout).video(split, sequence))

    def mask(self, video: Video, index: int) -> UInt8Array:
        """Returns the predicted mask of a frame, (H, W) object ids."""
        frame = video.frame_names[index]
        if not in_bucket(self.place):
            return decode_mask(Path(self.place) / video.name / f"{frame}.png")
        return self.buckets.ask(self.place, lambda: self._archives.mask(video.name, frame))

    @functools.cached_property
    def _archives(self) -> MaskArchives:
        return MaskArchives(Storage(self.place))


def in_bucket(place: str) -> bool:
    """Whether a place is a URI, and no folder on this machine."""
    return "://" in place


def place_of(run: Run, tag: str) -> str | None:
    """Returns the folder that a tag names: one on this machine, if it exists, or one in a bucket, without a look."""
    place = location_of(run.tags.get(tag, ""))
    if place.startswith("file://"):
        place = unquote(place.removeprefix("file://"))
    if in_bucket(place):
        return place
    folder = Path(place)
    return place if folder.is_absolute() and folder.is_dir() else None


def stored_predictions(rows: Sequence[Row], buckets: Buckets | None = None) -> list[Stored]:
    """Returns, of each row, the first finished run whose predictions are at hand; without the rows that have none.

    Args:
        rows: Configurations, then baselines, which were scored on the same videos as the first of them.
        buckets: Through which buckets are asked; None: a new one, which knows of none that is away.
    """
    buckets = buckets or Buckets()
    found: list[Stored] = []
    for row in rows:
        for run in row.finished:
            place = place_of(run, "ovos.predictions")
            if run.scores and place is not None:
                scored = run if run.source("evaluation") or not found else found[0].scored
                found.append(Stored(row, run, scored, place, buckets))
                break
    return found


def moments_of(video: Video, most: int) -> list[int]:
    """Returns labelled frames, at most so many, evenly spread, first and last among them."""
    labelled = sorted(video.masks)
    if len(labelled) <= most:
        return labelled
    return [labelled[round(i * (len(labelled) - 1) / (most - 1))] for i in range(most)]


def frames_at(video: Video, wanted: set[int]) -> dict[int, UInt8Array]:
    """Returns some frames of a video, by index."""
    return {index: frame for index, frame in enumerate(video.images()) if index in wanted}
