"""`report` and `sync`."""

from __future__ import annotations

from pathlib import Path

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


def sync(folder: str) -> bool:
    """Sends what tracking spools below a folder or bucket URI still hold; returns whether nothing is left."""
    from ovos_ray.io import Storage
    from ovos_ray.track.bucket import sync_bucket
    from ovos_ray.track.sink import sync as send

    storage = Storage(folder)
    left = send(Path(storage.root)) if storage.local else sync_bucket(storage)
    for unsent in left:
        console.print(str(unsent), soft_wrap=True)
    console.print("nothing is left to send" if not left else f"{len(left)} run(s) could not be sent; try again later")
    return not left
