"""The program `ovos-ray`: a file a verb, each a function whose signature is the verb's options.

Heavy imports (torch, Ray, MLflow) are made inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Annotated

import typer

import ovos_ray
from ovos_ray.cli.console import console, errors, tell
from ovos_ray.errors import OvosError

__all__ = ["app", "run"]

app = typer.Typer(
    name="ovos-ray",
    help="One-shot training of video object segmentation networks, orchestrated on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)

_OTHER_FOLDER = "give another folder, or the right to write in this one"
_OF_THE_DISK = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _OTHER_FOLDER) | {
    errno.ENOSPC: "make room there; the same command goes on where this one stopped",
    errno.EDQUOT: "make room there; the same command goes on where this one stopped",
    errno.ENOTDIR: "a part of this path is a file: give another folder",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""What a disk says where the program is not at fault, and what to do."""

_VERBS = (
    "label", "pack", "verify", "train", "sweep", "status", "show", "ls", "cp", "predict", "convert", "models", "export",
    "evaluate", "score", "submission", "report", "submit", "sync", "demo", "doctor",
)  # fmt: skip
for name in _VERBS:
    module = importlib.import_module(f"ovos_ray.cli.{name}")
    settings = {"allow_interspersed_args": False} if name == "submit" else None  # the job's options are not its own
    app.command(name, epilog=f"Example: `{module.EXAMPLE}`", context_settings=settings)(getattr(module, name))


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"ovos-ray {ovos_ray.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def run() -> None:
    """Runs the program; errors with a remedy are printed instead of a traceback."""
    try:
        app()
    except OvosError as error:
        tell(f"{type(error).__name__}:", error.message, style="bold red", where=errors)
        if error.remedy:
            tell("What to do:", error.remedy, style="bold", where=errors)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        tell(f"{type(error).__name__}:", f"{where}{error.strerror or error}", style="bold red", where=errors)
        tell("What to do:", _OF_THE_DISK[error.errno], style="bold", where=errors)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as error:
        told = error if isinstance(error, KeyboardInterrupt) else getattr(error.__context__, "__cause__", None)
        if not isinstance(told, KeyboardInterrupt):  # typer makes an exit of one, without a word
            raise
        errors.print("interrupted; the same command goes on where this one stopped")
        sys.exit(130)
