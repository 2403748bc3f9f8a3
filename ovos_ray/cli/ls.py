"""`ls`: what there is to run and to pack. Files are read for it, never run."""

from __future__ import annotations

from rich.table import Column, Table

from ovos_ray.cli.console import console
from ovos_ray.errors import DataError

__all__ = ["ls"]

EXAMPLE = "ovos-ray ls"


def ls() -> None:
    """Lists the recipes, studies and datasets at hand."""
    from ovos_ray.config.recipes import list_recipes
    from ovos_ray.data.folders.description import described_names
    from ovos_ray.data.folders.open import describe

    for title, package in (("trainables", "trainables"), ("search spaces", "search_spaces")):
        path = Column("path", no_wrap=True)  # to be copied whole
        table = Table(path, "what", title=title, title_justify="left", expand=False)
        for listed in list_recipes(package):
            table.add_row(listed.path, listed.summary)
        console.print(table)
    table = Table("name", "what", "label budget", title="datasets", title_justify="left")
    for name in described_names():
        try:
            description = describe(name)
        except DataError:
            continue  # a file of another kind
        table.add_row(name, description.title, description.label_budget)
    console.print(table)
