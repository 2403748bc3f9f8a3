"""`convert`: predicted masks become a JSON file that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console, counted

__all__ = ["convert"]

EXAMPLE = "ovos-ray convert predictions --to coco --out predictions.json"


def convert(
    masks: Annotated[Path, typer.Argument(help="Masks as VIDEO/FRAME.png, such as `predict` writes.")],
    out: Annotated[Path, typer.Option(help="The JSON file.")],
    to: Annotated[str, typer.Option(help="coco, youtube-vis or burst.")] = "coco",
) -> None:
    """Writes masks as COCO, YouTube-VIS or BURST JSON: for CVAT, Label Studio, or `pack --layout`."""
    from ovos_ray.evaluate.infer.convert import convert as write

    count = write(masks, out, to)
    console.print(f"{out}: {counted(count, 'mask')} as {to}, {out.stat().st_size / 1e6:.1f} MB")
