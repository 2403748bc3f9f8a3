"""`sync`: what the tracking spools still hold is sent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console

__all__ = ["sync"]

EXAMPLE = "ovos-ray sync runs"


def sync(
    folder: Annotated[str, typer.Argument(help="Folder or bucket URI of the runs.")] = "runs",
    tracking_uri: Annotated[
        str | None, typer.Option(help="A server to trust with them, beside those that runs of yours have used.")
    ] = None,
) -> None:
    """Sends what the tracking spools still hold; exits with 1 if something could not be sent."""
    from ovos_ray.storage import Storage
    from ovos_ray.track.bucket import sync_bucket
    from ovos_ray.track.leftovers import sync as send

    storage = Storage(folder)
    if storage.local:
        left = send(Path(storage.root), tracking_uri=tracking_uri, confirm=_agreed())
    else:
        left = sync_bucket(storage, tracking_uri=tracking_uri, confirm=_agreed())
    for unsent in left:
        console.print(str(unsent))
    console.print("nothing is left to send" if not left else f"{len(left)} run(s) could not be sent; try again later")
    if left:
        raise typer.Exit(1)


def _agreed() -> Callable[[str, Path], bool] | None:
    """Returns a question for the user; None where there is nobody to ask."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return None

    def ask(server: str, spool: Path) -> bool:
        console.print(f"No run of yours was tracked at {server}, which the records in {spool} name.")
        return typer.confirm("Send them there, with your credentials if you have set any?", default=False)

    return ask
