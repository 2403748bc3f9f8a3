"""`evaluate` and `submission`: verbs that need neither torch nor Ray, and so answer at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast, get_args

from rich.progress import Progress, TaskID

from ovos_ray.cli.console import console
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.score.table import Protocol

__all__ = ["evaluate", "submission"]


def evaluate(
    predictions: Path,
    annotations: Path,
    protocol: str,
    *,
    sequences: Sequence[str] | None = None,
    seen: Path | None = None,
    meta: Path | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    brief: bool = False,
    num_processes: int | None = None,
) -> None:
    """Scores predictions, prints the table, and writes it where asked to.

    The arguments are those of `evaluate_folders`; `brief` leaves the objects out of the printed table.

    Raises:
        ConfigError: There is no such protocol, or an option does not go with it.
        EvaluationError: Something is missing, misnamed or of the wrong kind.
    """
    from ovos_ray.evaluate.score.scoring import evaluate_folders

    if protocol not in get_args(Protocol):
        raise ConfigError(f"no protocol {protocol!r}", f"choose one of {', '.join(get_args(Protocol))}")
    if protocol != "youtube-vos" and (seen or meta):
        raise ConfigError(f"--seen and --meta mean nothing under {protocol}", "use --protocol youtube-vos")
    with _Progress() as progress:
        table = evaluate_folders(
            predictions,
            annotations,
            cast(Protocol, protocol),
            sequences=sequences,
            seen=seen,
            meta=meta,
            num_processes=num_processes,
            progress=progress,
        )
    console.print(table.render(per_object=not brief))
    for note in table.notes:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if csv is not None:
        table.write_csv(csv)
    if json is not None:
        table.write_json(json)


def submission(benchmark: str, root: Path, out: Path, predictions: Path | None) -> None:
    """Writes a checked zip for a benchmark's server; without predictions, checks the zip that is there.

    Raises:
        ConfigError: There is no such benchmark.
        EvaluationError: A rule is broken; all that are broken are listed.
    """
    from ovos_ray.evaluate.score.submission import check_submission, open_benchmark, refuse, write_submission

    folder, split = open_benchmark(benchmark, root)
    if predictions is None:
        if problems := check_submission(out, folder, split):
            refuse(out, problems)
        console.print(f"{out}: keeps every rule of {benchmark}", highlight=False, soft_wrap=True)
        return
    count = write_submission(predictions, folder, split, out)
    megabytes = out.stat().st_size / 1e6
    console.print(
        f"{count} masks of {len(folder.video_names(split))} videos, {megabytes:.1f} MB, checked: {out}",
        highlight=False,
        soft_wrap=True,
    )


class _Progress:
    """A progress bar that begins with the first report, so that helper processes start before its thread does."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from ovos_ray.cli.progress import progress_bar

            self._bar = self._stack.enter_context(progress_bar())
            self._task = self._bar.add_task("scoring", total=total)
        self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        self._stack.close()
