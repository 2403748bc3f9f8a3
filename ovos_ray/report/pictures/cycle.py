"""Cycle strips: a training clip there and back, which a run has drawn at its last step (`run/cycle_strip.py`)."""

from __future__ import annotations

import functools
import io

from PIL import Image

from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.pictures.pictures import Gallery, Strip, data_uri, or_nothing
from ovos_ray.report.read import fetch_artifact
from ovos_ray.report.runs import Run, printable

__all__ = ["ARTIFACT", "cycle_gallery"]

ARTIFACT = "figures/cycle.webp"
_WORDS = (
    "What training saw last: above, the label is carried forward without gradient; below, from the last mask alone the "
    "network walks back, and the reconstructed first mask is compared with the label. Grey frames are skipped."
)


def cycle_gallery(row: Row, tracking_uri: str) -> Gallery | None:
    """Shows the last clip of a row's training, of the first seed that has drawn it; None where none has."""
    for run in row.finished:
        gallery = or_nothing(functools.partial(_gallery, row, run, tracking_uri), f"strip of a clip of {run.name}")
        if gallery is not None:
            return gallery
    return None


def _gallery(row: Row, run: Run, tracking_uri: str) -> Gallery | None:
    if "ovos.cycle" not in run.tags or (content := fetch_artifact(tracking_uri, run, ARTIFACT)) is None:
        return None
    Image.open(io.BytesIO(content), formats=("WEBP",)).verify()
    strip = Strip(row.label, printable(run.tags["ovos.cycle"]), data_uri(content))
    return Gallery("the last clip", f"as {run.name} saw it", (strip,), _WORDS)
