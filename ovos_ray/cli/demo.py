"""`demo`: the whole chain, small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.options import Verbose

__all__ = ["demo"]

EXAMPLE = "ovos-ray demo --out demo"


def demo(
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("demo"),
    steps: Annotated[int | None, typer.Option(help="Optimiser steps per trial.")] = None,
    verbose: Verbose = False,
) -> None:
    """Runs the whole chain on an embedded synthetic dataset, in minutes on two CPU cores."""
    from ovos_ray.cli.demo_chain import run_demo

    if not run_demo(out, steps=steps, verbose=verbose):
        raise typer.Exit(1)
