"""`cp`: a recipe, a study or a description of a dataset becomes a file of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console
from ovos_ray.errors import ConfigError

__all__ = ["cp"]

EXAMPLE = "ovos-ray cp trainables.one_shot.xmem my.py"


def cp(
    recipe: Annotated[str, typer.Argument(help="A recipe, a study or a dataset of `ovos-ray ls`.")],
    file: Annotated[Path, typer.Argument(help="Where to write it, such as my.py.")],
) -> None:
    """Copies a recipe, a study or a dataset's description to edit."""
    from ovos_ray.config.recipes import copy_of
    from ovos_ray.data.folders.description import source_of

    if file.suffix != ".py" or not file.stem.isidentifier():
        raise ConfigError(f"{file} cannot be imported", "give the name of a module, such as my.py")
    if file.exists():
        raise ConfigError(f"{file} exists already", "give another name; nothing was changed")
    name, description = recipe.rpartition(".")[2], source_of(recipe)
    file.write_text(copy_of(recipe) if description is None else description, encoding="utf-8")
    path = file.stem if name == file.stem else f"{file.stem}.{name}"
    verb = "pack" if description is not None else "sweep" if recipe.startswith("search_spaces.") else "train"
    console.print(f"{file}; after editing: ovos-ray {verb} {file if description is not None else path}")
