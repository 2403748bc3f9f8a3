"""Options that several verbs share."""

from __future__ import annotations

import os
from typing import Annotated

import typer

__all__ = ["Again", "Overrides", "Replace", "Verbose", "WaitForNodes", "patience_s"]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as train.steps=500 (see `ovos-ray show`)."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Set aside what has this name and other settings.")]
Again = Annotated[bool, typer.Option("--again", help="Train what another finished run has computed, too.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Ray's own log.")]
WaitForNodes = Annotated[float, typer.Option(help="Minutes to wait for nodes of a cluster that may grow.")]


def patience_s(minutes: float) -> float:
    """Returns how long to wait for nodes: not at all on a cluster that this command has started on this machine."""
    return 60 * minutes if "RAY_ADDRESS" in os.environ else 0.0
