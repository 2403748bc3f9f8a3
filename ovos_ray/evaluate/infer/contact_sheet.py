"""One picture of several methods: a row per video, a column for the truth and for each folder of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.masks import decode_mask
from ovos_ray.evaluate.infer.overlay import overlay
from ovos_ray.io import atomic_path

__all__ = ["write_contact_sheet"]

_CELL_WIDTH, _CAPTION, _GAP = 320, 26, 6
_NUM_VIDEOS = 4
_MOMENT = 0.7  # which frame, as a fraction of the video


def write_contact_sheet(folder: DatasetFolder, split: str, predictions: Mapping[str, Path], out: Path) -> None:
    """Writes a PNG that shows one frame of each of the first videos as the truth and each method see it.

    `predictions` are folders of masks by caption.
    """
    rows = []
    for video in islice(folder.videos(split), _NUM_VIDEOS):
        t = round(_MOMENT * (video.num_frames - 1))
        image = next(islice(video.images(), t, None))
        masks = [decode_mask(path / video.name / f"{video.frame_names[t]}.png") for path in predictions.values()]
        rows.append([overlay(image, mask) for mask in (video.mask(t), *masks)])
    height = round(_CELL_WIDTH * rows[0][0].shape[0] / rows[0][0].shape[1])
    captions = ["truth", *predictions]
    size = len(captions) * (_CELL_WIDTH + _GAP) - _GAP, _CAPTION + len(rows) * (height + _GAP) - _GAP
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, caption in enumerate(captions):
        pen.text((column * (_CELL_WIDTH + _GAP) + 2, 2), caption, fill="black", font=font)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            picture = Image.fromarray(cell).resize((_CELL_WIDTH, height), Image.Resampling.BICUBIC)
            sheet.paste(picture, (column * (_CELL_WIDTH + _GAP), _CAPTION + row * (height + _GAP)))
    with atomic_path(out) as temporary:
        # 256 colours are enough for a picture that is to travel with a README.
        sheet.quantize(256).save(temporary, "PNG", optimize=True)
