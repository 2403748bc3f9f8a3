"""`show`: what a recipe or study comes to."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ovos_ray.cli.completion import complete_recipe
from ovos_ray.cli.console import console
from ovos_ray.cli.options import Overrides
from ovos_ray.errors import ConfigError
from ovos_ray.track.servers import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ovos_ray.config import ExperimentConfig
    from ovos_ray.study.space import SearchSpace

__all__ = ["print_config", "show"]

EXAMPLE = "ovos-ray show trainables.one_shot.xmem data.clip_length=5 --explain"


def show(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe, a study, a file of settings, or a run's folder.", autocompletion=complete_recipe
        ),
    ],
    overrides: Overrides = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="What each setting means, its default and choices; * where it differs.")
    ] = False,
    form: Annotated[
        Literal["text", "yaml", "json"], typer.Option("--format", help="`yaml` and `json` are what `train` reads.")
    ] = "text",
) -> None:
    """Prints the resolved configuration of a recipe, or the trials of a study."""
    from ovos_ray.config import ExperimentConfig, override
    from ovos_ray.config.files import find_config, is_file
    from ovos_ray.config.recipes import make
    from ovos_ray.run.checks import check_settings
    from ovos_ray.run.pretraining import pin
    from ovos_ray.study.space import SearchSpace

    made = find_config(recipe) if is_file(recipe) else make(recipe, object)
    if isinstance(made, SearchSpace):
        _show_study(made, overrides or [], explain=explain, form=form)
    elif isinstance(made, ExperimentConfig):
        written = override(made, overrides or [])
        config = pin(written)
        check_settings(config)
        if form == "text":
            print_config(config, explained=explain)
        else:
            refuse_secrets(config.tracking_uri)
            _print_data(_storable(written), form)
    else:
        raise ConfigError(
            f"{recipe} makes a {type(made).__name__}, neither a configuration nor a study",
            "return an ExperimentConfig or a SearchSpace from it",
        )


def _show_study(made: SearchSpace, overrides: Sequence[str], *, explain: bool, form: str) -> None:
    from ovos_ray.cli.studies import print_study
    from ovos_ray.run.checks import check_settings
    from ovos_ray.study.expand import expand_study
    from ovos_ray.study.price import group_trials

    space, trials, skipped = expand_study(made, overrides)
    check_settings(trials[0].config)
    if form != "text":
        refuse_secrets(trials[0].config.tracking_uri)
        shown = [{"name": one.name, "digest": one.key, **_storable(one.config)} for one in trials]
        _print_data({"study": space.name, "trials": shown}, form)
        return
    print_study(space, group_trials(trials), skipped)
    print_config(trials[0].config, explained=explain)


def _storable(config: ExperimentConfig) -> dict[str, Any]:
    """Returns what `train` reads back: a stored configuration without what is filled in anew each time."""
    from ovos_ray.config.digest import unpinned
    from ovos_ray.config.stored import to_store

    stored = to_store(unpinned(config))
    del stored["digest"]  # it would be that of one moment, and the user is to change what is here
    return stored


def _print_data(values: dict[str, Any], form: str) -> None:
    import yaml

    if form == "json":
        text = json.dumps(values, indent=2)
    else:
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    console.print(text.rstrip())


def print_config(config: ExperimentConfig, *, explained: bool = False) -> None:
    """Prints every setting by its dotted key, a line each; `explained`, with what it means.

    Raises:
        ConfigError: One of them is a secret.
    """
    from ovos_ray.config import flatten
    from ovos_ray.config.digest import digest

    refuse_secrets(config.tracking_uri)
    leaves = flatten(config)
    width = max(map(len, leaves))
    for key, value in leaves.items():
        if explained:
            _print_explained(key, value)
        else:
            console.print(f"{key:<{width}}  {value!r}")
    console.print(f"digest {digest(config)}")


def _print_explained(key: str, value: Any) -> None:
    from ovos_ray.config.explain import explain

    meaning = explain()[key]
    differs = value != meaning.default
    notes = [f"default {meaning.default!r}"] if differs else []
    notes += ["one of " + ", ".join(meaning.choices)] if meaning.choices else []
    notes += [meaning.limits] if meaning.limits else []
    mark, style = ("*", "bold") if differs else (" ", "")
    remark = f"   ({'; '.join(notes)})" if notes else ""
    console.print(f"{mark} {key} = {value!r}{remark}", style=style)
    width = min(console.width, 120) if console.is_terminal else 10_000
    console.print(textwrap.indent(textwrap.fill(meaning.text, width - 4), "    "))
