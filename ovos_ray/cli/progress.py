"""The progress bar of all verbs."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ovos_ray.cli.console import console

__all__ = ["progress_bar"]


def progress_bar() -> Progress:
    """Returns a progress bar that shows on terminals only."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
