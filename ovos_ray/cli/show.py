"""`show`: what a recipe or study comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ovos_ray.cli.console import console
from ovos_ray.cli.options import Overrides
from ovos_ray.errors import ConfigError
from ovos_ray.track.servers import refuse_secrets

if TYPE_CHECKING:
    from ovos_ray.config import ExperimentConfig

__all__ = ["print_config", "show"]

EXAMPLE = "ovos-ray show trainables.one_shot.xmem data.clip_length=5"


def show(
    recipe: Annotated[str, typer.Argument(help="A recipe or a study.")],
    overrides: Overrides = None,
) -> None:
    """Prints the resolved configuration of a recipe, or the trials of a study."""
    from ovos_ray.cli.studies import print_study
    from ovos_ray.config import ExperimentConfig, override
    from ovos_ray.config.recipes import make
    from ovos_ray.run.checks import check_settings
    from ovos_ray.run.pretraining import pin
    from ovos_ray.study.expand import expand_study
    from ovos_ray.study.price import group_trials
    from ovos_ray.study.space import SearchSpace

    made = make(recipe, object)
    if isinstance(made, SearchSpace):
        space, trials, skipped = expand_study(made, overrides or [])
        print_study(space, group_trials(trials), skipped)
        check_settings(trials[0].config)
        print_config(trials[0].config)
    elif isinstance(made, ExperimentConfig):
        config = pin(override(made, overrides or []))
        check_settings(config)
        print_config(config)
    else:
        raise ConfigError(
            f"{recipe} makes a {type(made).__name__}, neither a configuration nor a study",
            "return an ExperimentConfig or a SearchSpace from it",
        )


def print_config(config: ExperimentConfig) -> None:
    """Prints every setting by its dotted key.

    Raises:
        ConfigError: One of them is a secret.
    """
    from ovos_ray.config import flatten
    from ovos_ray.config.digest import digest

    refuse_secrets(config.tracking_uri)
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in flatten(config).items():
        table.add_row(key, repr(value))
    console.print(table)
    console.print(f"digest {digest(config)}")
