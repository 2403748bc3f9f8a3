"""`evaluate`: predictions become a table of scores. Needs neither torch nor Ray, and so answers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from ovos_ray.cli.console import console, progress_bar, tell
from ovos_ray.errors import ConfigError

if TYPE_CHECKING:
    from ovos_ray.evaluate.score.table import Protocol, ScoreTable

__all__ = ["evaluate", "score"]

EXAMPLE = (
    "ovos-ray evaluate --predictions predictions --annotations DAVIS/2017/trainval/Annotations/480p "
    "--protocol davis2017"
)


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(
            help="Predicted masks: one folder per video, or one VIDEO.zip, on a disk or in a bucket (s3://…)."
        ),
    ],
    annotations: Annotated[Path, typer.Option(help="Folder of true masks, or the dataset's.")],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="davis2016, davis2017 or youtube-vos. Default: youtube-vos beside a meta.json, otherwise davis2017."
        ),
    ] = None,
    sequences: Annotated[str | None, typer.Option(help="Only these, such as bear,swan.")] = None,
    seen: Annotated[Path | None, typer.Option(help="youtube-vos: meta.json of the training set.")] = None,
    meta: Annotated[Path | None, typer.Option(help="youtube-vos: meta.json of the split.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write scores per sequence and object here.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON here.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the summary only.")] = False,
    num_processes: Annotated[int | None, typer.Option(help="Default: one per CPU.")] = None,
) -> None:
    """Scores predictions as the official toolkit does. Exits with 1 if they cannot be scored, saying why."""
    from ovos_ray.evaluate.score.pairs import has_meta
    from ovos_ray.evaluate.score.table import Protocol

    if protocol is None:
        protocol = "youtube-vos" if seen or meta or has_meta(annotations) else "davis2017"
    if protocol not in get_args(Protocol):
        raise ConfigError(f"no protocol {protocol!r}", f"choose one of {', '.join(get_args(Protocol))}")
    if protocol != "youtube-vos" and (seen or meta):
        raise ConfigError(f"--seen and --meta mean nothing under {protocol}", "use --protocol youtube-vos")
    chosen = cast(Protocol, protocol)
    names = sequences.split(",") if sequences else None
    table = _scored(predictions, annotations, chosen, names, seen=seen, meta=meta, num_processes=num_processes)
    if csv is not None:
        table.write_csv(csv)
    if json is not None:
        table.write_json(json)
    _print_table(table, per_object=not brief)


def score(predictions: Path, annotations: Path, protocol: Protocol, sequences: Sequence[str]) -> None:
    """Scores predictions and prints the table."""
    _print_table(_scored(predictions, annotations, protocol, sequences))


def _scored(
    predictions: Path, annotations: Path, protocol: Protocol, sequences: Sequence[str] | None, **options: Any
) -> ScoreTable:
    from ovos_ray.evaluate.infer.mask_archive import unpacked
    from ovos_ray.evaluate.score.scoring import evaluate_folders

    with unpacked(predictions, sequences) as folder, _progress() as progress:
        return evaluate_folders(folder, annotations, protocol, sequences=sequences, progress=progress, **options)


def _print_table(table: ScoreTable, *, per_object: bool = True) -> None:
    console.print(table.render(per_object=per_object))
    for note in table.notes:
        tell("Note:", note, style="yellow")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yields what moves a bar that begins with the first report: helper processes start before its thread does."""
    bar = progress_bar()
    task = bar.add_task("scoring", total=None)

    def report(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        bar.stop()
