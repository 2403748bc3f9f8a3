"""`status`: how a study or a run stands, read from its folder; also while others make it, and over ssh."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from ovos_ray.cli.console import console, duration, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ovos_ray.study.status import RunStatus, StudyStatus

__all__ = ["sparkline", "status"]

EXAMPLE = "ovos-ray status runs/backward_strategy --watch"
_BARS = "▁▂▃▄▅▆▇█"
_ORDER = ("running", "interrupted", "failed", "finished", "stopped", "waiting")
_COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "interrupted": "yellow"}
_MAX_ROWS = 60
_PIPED_WIDTH = 200


def status(
    folder: Annotated[str, typer.Argument(metavar="STUDY_OR_RUN", help="Its folder, or its name below runs/.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until all is done.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 5.0,
) -> None:
    """Shows how a study or a run stands: best so far, curves, what was stopped or failed, what is left, what it cost.

    It reads the storage folder alone: no cluster and no tracking server is asked, and nothing is disturbed.
    """
    from ovos_ray.study.status import read_study

    folder = _found(folder)
    if not watch:
        _print(read_study(folder))
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for study in _looks(folder, every):
                live.update(_shown(study, console.width), refresh=True)
    else:
        for study in _looks(folder, every):
            console.print(_headline(study))


def _found(folder: str) -> str:
    from ovos_ray.storage import Storage

    below = f"runs/{folder}"
    here, there = (Storage(one).folders() for one in (folder, below))
    return below if there and not here and "://" not in folder else folder


def _looks(folder: str, every: float) -> Iterator[StudyStatus]:
    from ovos_ray.study.status import read_study

    while True:
        study = read_study(folder)
        yield study
        if not any(study.count(state) for state in ("running", "interrupted", "waiting")):
            return
        time.sleep(every)


def _print(study: StudyStatus) -> None:
    # In a pipe or a file nothing is folded to the width of a terminal that is not there.
    where = console if console.is_terminal else type(console)(width=_PIPED_WIDTH)
    where.print(_shown(study, where.width))


def _shown(study: StudyStatus, width: int) -> RenderableType:
    unit = "/".join(study.hours)
    names = ("run", "state", "step", "loss", "J&F", "left", f"{unit}-hours")
    right = ("step", "left", f"{unit}-hours")
    columns = [Column(name, no_wrap=True, justify="right" if name in right else "left") for name in names]
    table = Table(*columns, box=None, pad_edge=False)
    runs = sorted(study.runs, key=lambda run: (_ORDER.index(run.state), -(run.compared or run.score or -1.0)))
    kept = runs[:_MAX_ROWS]
    for run in kept:
        table.add_row(*_row(run, 16 if width >= 100 else 6))
    lines: list[RenderableType] = [table, Text(_headline(study), style="bold")]
    if len(runs) > len(kept):
        lines.insert(1, Text(f"… and {len(runs) - len(kept)} more"))
    lines += [Text(printable(f"failed: {run.name}: {run.reason}"), style="red") for run in runs if run.reason]
    return Group(*lines)


def _row(run: RunStatus, width: int) -> Sequence[RenderableType]:
    loss, validated = ([value for _, value in run.progress.curves.get(name, ())] for name in ("train/loss", "val/jf"))
    curve = sparkline(validated, width) if len(validated) > 1 else ""
    score = "" if run.score is None else f"{run.score:.1f}"
    return (
        Text(printable(run.name)),
        Text(run.state, style=_COLOURS.get(run.state, "")),
        "" if run.state == "waiting" else f"{run.step:,}/{run.steps:,}",
        f"{sparkline(loss, width)} {loss[-1]:.3f}" if loss else "",
        f"{curve} {score}".strip(),
        "" if run.left_s is None else duration(run.left_s),
        f"{run.processors * run.seconds / 3600:.2f}" if run.seconds else "",
    )


def _headline(study: StudyStatus) -> str:
    counts = [f"{number} {state}" for state in _ORDER if (number := study.count(state))]
    parts = [f"{study.name}: {', '.join(counts).replace('stopped', 'stopped early')}"]
    if (best := study.best) is not None and best.compared is not None:
        split = " on the selection split" if study.metric.startswith("val/") else ""
        parts.append(f"best so far {best.name} with {best.compared:.1f}{split}")
    parts += [f"{hours:,.2f} {unit}-hours so far" for unit, hours in study.hours.items() if hours]
    if study.left_s is not None:
        parts.append(f"about {duration(study.left_s)} left, {study.count('running')} at a time")
    return printable("; ".join(parts))


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Draws values as a row of bars; more values than bars (`width`) are averaged, and no number leaves a gap."""
    size = max(1, -(-len(values) // width))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    finite = [mean for mean in means if abs(mean) < float("inf")]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    heights = [round((mean - low) / span * (len(_BARS) - 1)) if span and mean in finite else 0 for mean in means]
    return "".join(_BARS[height] if mean in finite else " " for mean, height in zip(means, heights, strict=True))
