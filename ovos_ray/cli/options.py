"""Options that several verbs share."""

from __future__ import annotations

import re
import shlex
import sys
from typing import Annotated

import typer

from ovos_ray.cli.completion import complete_override
from ovos_ray.errors import ConfigError

__all__ = [
    "LAYOUTS",
    "Again",
    "Network",
    "On",
    "Overrides",
    "PrompterName",
    "PrompterWeights",
    "Replace",
    "Verbose",
    "WaitForNodes",
    "minutes",
    "require_dry_run",
    "trial_tags",
    "typed",
]

LAYOUTS = (
    "auto, davis2017, davis2016, youtube-vos, youtube-vis, coco, burst, cvat-xml, cvat-masks, "
    "label-studio, vost, static or folder"
)
"""Written out, so that `--help` answers at once; `tests/unit/test_help.py` compares them with those there are."""
Network = Annotated[
    str | None,
    typer.Option(
        help="Network of a file that does not name its own: stcn, xmem, cutie-base, cutie-small, stcn-tiny, xmem-tiny "
        "or cutie-tiny."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Dotted overrides, such as train.steps=500 (all of them: `ovos-ray show RECIPE --explain`).",
        autocompletion=complete_override,
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Set aside what has this name and other settings.")]
Again = Annotated[bool, typer.Option("--again", help="Train also where another finished run has computed the same.")]
On = Annotated[str | None, typer.Option(help="With --dry-run: price for a GPU elsewhere: h100.")]
PrompterName = Annotated[
    str, typer.Option("--prompter", help="What makes masks of boxes: `grabcut`, or `sam` (needs ovos-ray[prompt]).")
]
PrompterWeights = Annotated[
    str | None, typer.Option(help="With --prompter sam: a name of Hugging Face's hub, or a folder.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Ray's own log.")]


def minutes(text: str | float) -> float:
    """Returns minutes from a number of them, or from a time such as `15m`, `2h` or `90s`.

    Raises:
        ConfigError: It is neither.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smh]?)", str(text).strip())
    if found is None:
        raise ConfigError(f"{text!r} is no time to wait", "give minutes, such as 15 or 15m, or 90s, or 2h")
    return float(found[1]) * {"s": 1 / 60, "m": 1, "h": 60, "": 1}[found[2]]


WaitForNodes = Annotated[
    float,
    typer.Option(
        parser=minutes, metavar="MINUTES", help="How long to wait for nodes of a cluster that may grow: 15, 15m, 2h."
    ),
]


def require_dry_run(on: str | None, dry_run: bool) -> None:
    """Refuses a price for elsewhere where something would be trained here.

    Raises:
        ConfigError: `--on` is given without `--dry-run`.
    """
    if on is not None and not dry_run:
        raise ConfigError(f"--on {on} prices a run and trains nothing", "add --dry-run, or leave --on out")


def trial_tags() -> dict[str, str]:
    """Returns the MLflow tags of a run: where it comes from, and the command that was typed, to be pasted again."""
    from ovos_ray.track.provenance import provenance_tags

    return {**provenance_tags(kind="trial"), "ovos.command": typed()[:5000]}


def typed() -> str:
    """Returns the command that this process was started with, to be pasted."""
    return shlex.join(["ovos-ray", *sys.argv[1:]])
