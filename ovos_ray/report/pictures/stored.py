"""Stored predictions: where the masks lie that a run has predicted, and which video they belong to.

Nothing here predicts. A run says where its masks are (tag `ovos.predictions`) and its configuration says what they are
masks of; a run whose files are not on this machine gets no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import decode_mask
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.runs import Run

__all__ = ["Stored", "frames_at", "local_folder", "moments_of", "stored_predictions"]


@dataclass(frozen=True)
class Stored:
    """The predictions of one finished run of a configuration.

    Attributes:
        row: The configuration.
        run: The run.
        scored: The run whose configuration names the dataset; baselines have none of their own.
        folder: The masks, `folder`/SEQUENCE/FRAME.png.
    """

    row: Row
    run: Run
    scored: Run
    folder: Path

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
        return open_dataset(root, layout=layout).video(self.scored.param("evaluation.split", "val"), sequence)

    def mask(self, video: Video, index: int) -> npt.NDArray[np.uint8]:
        """Returns the predicted mask of a frame, (H, W) object ids."""
        return decode_mask(self.folder / video.name / f"{video.frame_names[index]}.png")


def local_folder(run: Run, tag: str) -> Path | None:
    """Returns the folder that a tag names, if it is on this machine."""
    folder = Path(run.tags.get(tag, ""))
    return folder if folder.is_absolute() and folder.is_dir() else None


def stored_predictions(rows: Sequence[Row]) -> list[Stored]:
    """Returns, of each row, the first finished run whose predictions are at hand; without the rows that have none.

    Args:
        rows: Configurations, then baselines, which were scored on the same videos as the first of them.
    """
    found: list[Stored] = []
    for row in rows:
        for run in row.finished:
            folder = local_folder(run, "ovos.predictions")
            if run.scores and folder is not None:
                scored = run if run.source("evaluation") or not found else found[0].scored
                found.append(Stored(row, run, scored, folder))
                break
    return found


def moments_of(video: Video, most: int) -> list[int]:
    """Returns labelled frames, at most so many, evenly spread, first and last among them."""
    labelled = sorted(video.masks)
    if len(labelled) <= most:
        return labelled
    return [labelled[round(i * (len(labelled) - 1) / (most - 1))] for i in range(most)]


def frames_at(video: Video, wanted: set[int]) -> dict[int, npt.NDArray[np.uint8]]:
    """Returns some frames of a video, by index."""
    return {index: frame for index, frame in enumerate(video.images()) if index in wanted}
