"""`score`: finished weights are scored later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.completion import complete_override
from ovos_ray.cli.console import console
from ovos_ray.errors import ConfigError

__all__ = ["score"]

EXAMPLE = "ovos-ray score runs/backward_strategy evaluation.also=davis2016=DAVIS/2016"


def score(
    run: Annotated[Path, typer.Argument(help="Folder or URI of a finished run, or of a study with some.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of the evaluation, such as evaluation.root=DAVIS/2017.",
            autocompletion=complete_override,
        ),
    ] = None,
    server: Annotated[
        Path | None, typer.Option(help="What a benchmark's server answered (docs/evaluation.md).")
    ] = None,
) -> None:
    """Scores the weights of finished runs on further datasets, or enters a server's scores, into the same runs."""
    from ovos_ray.evaluate.score.server import read_server_scores
    from ovos_ray.run.score import enter_scores, finished_runs, score_run

    if server is not None:
        runs = finished_runs(run)
        if len(runs) > 1 or overrides:
            what = f"{run} holds {len(runs)} runs" if len(runs) > 1 else "--server takes no settings"
            raise ConfigError(f"{what}; a server's answer belongs to one run", "give its folder and the file alone")
        scores = enter_scores(runs[0], read_server_scores(server), console.print)
        console.print(f"{runs[0].name}: {'  '.join(f'{name} {value:.1f}' for name, value in scores.items())}")
        return
    for folder in finished_runs(run):
        scores = score_run(folder, overrides or [], console.print)
        said = "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
        console.print(f"{folder.name}: {said or 'nothing new, its scores are there'}")
