"""`report` and `sync`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from ovos_ray.cli.console import console

__all__ = ["report", "sync"]


def report(
    experiment: str, out: Path, *, tracking_uri: str, sequences: tuple[str, ...], attach: bool, terminal: bool
) -> None:
    """Writes the comparison of a study, or prints its summary and tables.

    Raises:
        TrackingError: The store has no such experiment, or a sequence was not scored.
    """
    from ovos_ray.report.build import build_report, compare_study, render_table
    from ovos_ray.report.terminal import render_report

    if terminal:
        for part in render_report(compare_study(experiment, tracking_uri)):
            console.print(part)
        return
    written = build_report(experiment, tracking_uri, out, sequences=sequences, attach=attach)
    console.print(render_table(written.comparison))
    console.print(f"report: {written.html}", soft_wrap=True)


def sync(folder: str, tracking_uri: str | None) -> bool:
    """Sends what tracking spools below a folder or bucket URI still hold; returns whether nothing is left.

    Raises:
        TrackingError: There is no such folder.
        ConfigError: The address of the server holds credentials.
    """
    from ovos_ray.io import Storage
    from ovos_ray.track.bucket import sync_bucket
    from ovos_ray.track.leftovers import sync as send

    storage = Storage(folder)
    if storage.local:
        left = send(Path(storage.root), tracking_uri=tracking_uri, confirm=_agreed())
    else:
        left = sync_bucket(storage, tracking_uri=tracking_uri, confirm=_agreed())
    for unsent in left:
        console.print(str(unsent), soft_wrap=True)
    console.print("nothing is left to send" if not left else f"{len(left)} run(s) could not be sent; try again later")
    return not left


def _agreed() -> Callable[[str, Path], bool] | None:
    """Returns a question for the user; None where there is nobody to ask."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return None

    def ask(server: str, spool: Path) -> bool:
        console.print(f"No run of yours was tracked at {server}, which the records in {spool} name.")
        return typer.confirm("Send them there, with your credentials if you have set any?", default=False)

    return ask
