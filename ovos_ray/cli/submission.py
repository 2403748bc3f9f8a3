"""`submission`: predictions become the zip that a benchmark's server wants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console, counted

__all__ = ["submission"]

EXAMPLE = (
    "ovos-ray submission --predictions predictions --benchmark youtube-vos2018 --root YouTube --out submission.zip"
)


def submission(
    benchmark: Annotated[
        str,
        typer.Option(
            help="davis2016, davis2017, davis2017-test-dev, davis2017-test-challenge, youtube-vos2018 or "
            "youtube-vos2019."
        ),
    ],
    root: Annotated[Path, typer.Option(help="The benchmark's dataset.")],
    out: Annotated[Path, typer.Option(help="The zip; it appears only if every rule is kept.")],
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Written by `predict`, or by a run: a folder per video or a VIDEO.zip, on a disk or in a bucket; "
            "without: check --out."
        ),
    ] = None,
) -> None:
    """Zips predictions for a benchmark's server, and checks every rule of it."""
    from ovos_ray.evaluate.infer.mask_archive import unpacked
    from ovos_ray.evaluate.score.submission import check_submission, open_benchmark, refuse, write_submission

    folder, split = open_benchmark(benchmark, root)
    if predictions is None:
        if problems := check_submission(out, folder, split):
            refuse(out, problems)
        console.print(f"{out}: keeps every rule of {benchmark}")
        return
    with unpacked(predictions, folder.video_names(split)) as masks:
        count = write_submission(masks, folder, split, out)
    megabytes = out.stat().st_size / 1e6
    videos = counted(len(folder.video_names(split)), "video")
    console.print(f"{counted(count, 'mask')} of {videos}, {megabytes:.1f} MB, checked: {out}")
