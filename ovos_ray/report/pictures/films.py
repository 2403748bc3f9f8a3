"""Films for the report's folder: the truth and all predictions side by side, one MP4 a sequence."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ovos_ray.arrays import UInt8Array
from ovos_ray.errors import MissingExtraError
from ovos_ray.evaluate.infer.overlay import OverlayWriter, tile
from ovos_ray.report.pictures.pictures import or_nothing
from ovos_ray.report.pictures.stored import Stored, moments_of

__all__ = ["write_films"]

_log = logging.getLogger(__name__)
_WIDTH, _FRAMES, _RATE = 480, 120, 10
_CAPTION = 22


def write_films(stored: Sequence[Stored], films: Mapping[str, Path]) -> list[Path]:
    """Writes films, by sequence, to their paths; returns those that could be made, none where PyAV is not installed."""
    written = []
    for sequence, path in films.items():
        try:
            writer = OverlayWriter(path, _RATE)
        except MissingExtraError as error:
            _log.warning("no MP4s: %s", error)
            return []
        complete = or_nothing(functools.partial(_write, writer, stored, sequence), f"film of {sequence}")
        writer.close(keep=complete is True)
        written += [path] if complete else []
    return written


def _write(writer: OverlayWriter, stored: Sequence[Stored], sequence: str) -> bool:
    for picture in _film(stored, sequence):
        writer.add(picture)
    return True


def _film(stored: Sequence[Stored], sequence: str) -> Iterator[UInt8Array]:
    video = stored[0].video(sequence)
    moments = set(moments_of(video, _FRAMES))
    labels = ["truth", *(one.row.label for one in stored)]
    columns = 2 if len(labels) > 3 else len(labels)
    for index, frame in enumerate(video.images()):
        if index not in moments:
            continue
        masks = [video.mask(index), *(one.mask(video, index) for one in stored)]
        tiles = [tile(frame, mask, _WIDTH) for mask in masks]
        width, height = tiles[0].width, tiles[0].height + _CAPTION
        sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "#202020")
        draw = ImageDraw.Draw(sheet)
        for place, (label, picture) in enumerate(zip(labels, tiles, strict=True)):
            x, y = place % columns * width, place // columns * height
            draw.text((x + 6, y + 5), label.replace("·", "/").encode("latin-1", "replace").decode("latin-1"))
            sheet.paste(picture, (x, y + _CAPTION))
        yield np.asarray(sheet)
