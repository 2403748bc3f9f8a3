"""`report`: the comparison of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console

__all__ = ["report"]

EXAMPLE = "ovos-ray report backward_strategy --out report"


def report(
    experiment: Annotated[str, typer.Argument(help="Name of the study (MLflow experiment).")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    tracking_uri: Annotated[str, typer.Option(help="MLflow store.")] = "sqlite:///mlflow.db",
    sequence: Annotated[list[str] | None, typer.Option(help="Show pictures of this one; may be repeated.")] = None,
    attach: Annotated[bool, typer.Option(help="Also store page and pictures with the runs in MLflow.")] = True,
    terminal: Annotated[bool, typer.Option("--terminal", help="Print the summary and the tables only.")] = False,
    stage_0: Annotated[list[str] | None, typer.Option(help="Weights file that holds stage 0 as published.")] = None,
) -> None:
    """Compares the trials of a study: tables beside the paper's, plots, overlays, one HTML page."""
    from ovos_ray.report.build import build_report, compare_study, render_table
    from ovos_ray.report.terminal import render_report

    if terminal:
        for part in render_report(compare_study(experiment, tracking_uri), stage_0 or ()):
            console.print(part)
        return
    written = build_report(
        experiment, tracking_uri, out, sequences=tuple(sequence or ()), attach=attach, stage_0=stage_0 or ()
    )
    console.print(render_table(written.comparison))
    console.print(f"report: {written.html}")
