"""`ls`: what there is to run and to pack. Files are read for it, never run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column, Table

from ovos_ray.cli.console import console
from ovos_ray.errors import DataError

__all__ = ["ls"]

EXAMPLE = "ovos-ray ls"


def ls() -> None:
    """Lists the recipes, studies, datasets and layouts at hand."""
    from ovos_ray.config.recipes import list_recipes
    from ovos_ray.data.folders.description import described_names
    from ovos_ray.data.folders.open import LAYOUTS, describe

    for title, package in (("trainables", "trainables"), ("search spaces", "search_spaces")):
        rows = [(listed.path, listed.summary) for listed in list_recipes(package)]
        _print(title, ("path", "what"), rows)
    described = []
    for name in described_names():
        try:
            description = describe(name)
        except DataError:
            continue  # a file of another kind
        described.append((name, description.title, description.label_budget))
    _print("datasets", ("name", "what", "label budget"), described)
    _print("layouts", ("name", "what lies there"), [(kind.layout, kind.expected) for kind in LAYOUTS.values()])


def _print(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Prints a table; in a pipe or a file a line a row, folded nowhere."""
    if console.is_terminal:
        first = Column(heads[0], no_wrap=True)  # to be copied whole
        table = Table(first, *heads[1:], title=title, title_justify="left", expand=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    console.print(f"{title}:")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        console.print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
