"""`score`: finished weights are scored later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console
from ovos_ray.cli.options import Overrides

__all__ = ["score"]

EXAMPLE = "ovos-ray score runs/backward_strategy evaluation.also=davis2016=DAVIS/2016"


def score(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a study with some.")],
    overrides: Overrides = None,
) -> None:
    """Scores the weights of finished runs on further datasets, into the same runs."""
    from ovos_ray.run.score import finished_runs, score_run

    for folder in finished_runs(run):
        scores = score_run(folder, overrides or [], console.print)
        said = "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
        console.print(f"{folder.name}: {said or 'was scored on all of it before'}")
