"""What the shell offers after TAB: recipes, studies, settings and their choices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer

__all__ = ["complete_override", "complete_recipe", "complete_study"]

Offers = Iterator[tuple[str, str]]
"""What may be typed, and what it means; typer drops what does not begin as typed."""


def complete_recipe(incomplete: str) -> Offers:
    """Offers recipes, and files of configurations."""
    from ovos_ray.config.files import SUFFIXES

    yield from _listed("trainables")
    folder = Path(incomplete).parent
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.suffix in SUFFIXES or path.is_dir():
                yield f"{path}/" if path.is_dir() else str(path), ""


def complete_study() -> Offers:
    """Offers studies."""
    yield from _listed("search_spaces")


def _listed(package: str) -> Offers:
    from ovos_ray.config.recipes import list_recipes

    for recipe in list_recipes(package):
        yield recipe.path, recipe.summary


def complete_override(context: typer.Context, incomplete: str) -> Offers:
    """Offers keys with `=`, and after it what the setting may be.

    Bash counts `key`, `=` and the value as three words, and replaces the last of them only; other shells have one.
    """
    from ovos_ray.config.explain import explain

    known, words = explain(), [*(context.params.get("overrides") or ()), ""]
    before = ""
    if "=" in incomplete:
        key = incomplete.partition("=")[0]
        before = f"{key}="
    elif words[-2:-1] == ["="]:
        key = words[-3]
    elif not incomplete and len(words) > 1 and words[-2] in known:  # the word is `=` itself, which is not handed on
        key = words[-2]
    else:
        yield from ((f"{key}=", meaning.text) for key, meaning in known.items())
        return
    yield from ((before + choice, "") for choice in (known[key].choices if key in known else ()))
