"""`verify`: every row of a shard folder is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console, progress_bar

__all__ = ["verify"]

EXAMPLE = "ovos-ray verify shards/davis"


def verify(shards: Annotated[Path, typer.Argument(help="A folder or s3://… written by `ovos-ray pack`.")]) -> None:
    """Checks every row of a shard folder; exits with 1 if anything is wrong."""
    from ovos_ray.data.shards.verify import verify as check
    from ovos_ray.storage import location_of

    where = location_of(shards)
    with progress_bar() as bar:
        task = bar.add_task(f"checking {where}", total=None)
        problems = check(where, lambda done, total: bar.update(task, completed=done, total=total))
    for problem in problems:
        console.print(str(problem))
    console.print(f"{where}: {len(problems)} problem(s)" if problems else f"{where}: every row is good")
    if problems:
        raise typer.Exit(1)
