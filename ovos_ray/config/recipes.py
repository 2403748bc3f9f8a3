"""Finds recipes and studies by module path, so that a user's own module works like the ones that travel along.

`trainables.one_shot` is the function `one_shot` in that module; `trainables.one_shot.xmem` another function there.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ovos_ray.errors import ConfigError

__all__ = ["Recipe", "find", "list_recipes", "make"]

Made = TypeVar("Made")


@dataclass(frozen=True)
class Recipe:
    """A function that makes a configuration or a study.

    Attributes:
        path: What is typed on the command line.
        make: The function, without arguments.
    """

    path: str
    make: Callable[[], Any]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]


def find(path: str) -> Recipe:
    """Finds a recipe by its path.

    Raises:
        ConfigError: There is no such module or function; names the ones there are.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    module, name = _import(path), path.rpartition(".")[2]
    if module is None:
        parent, _, name = path.rpartition(".")
        module = _import(parent) if parent else None
    if module is None or (hasattr(module, "__path__") and not hasattr(module, name)):
        raise ConfigError(f"no recipe {path!r}: there is no such module", _hint(path))
    functions = dict(_functions(module))
    if name not in functions:
        hint = (
            f"it has {', '.join(sorted(functions))}" if functions else "write a function () -> ExperimentConfig there"
        )
        raise ConfigError(f"module {module.__name__} has no recipe {name!r}", hint)
    return Recipe(path, functions[name])


def _hint(path: str) -> str:
    """Names recipes of the same package; without one, those that travel along and end alike or read alike."""
    top = path.partition(".")[0]
    if known := [recipe.path for recipe in list_recipes(top)]:
        return f"did you mean {', '.join(difflib.get_close_matches(path, known, 3, 0.4) or known)}?"
    known = [recipe.path for package in ("trainables", "search_spaces") for recipe in list_recipes(package)]
    near = [name for name in known if name.endswith(f".{path}")][:3] or difflib.get_close_matches(path, known, 3, 0.5)
    return f"did you mean {', '.join(near)}?" if near else f"start in the folder that holds {top}/"


def make(path: str, kind: type[Made]) -> Made:
    """Finds a recipe and calls it.

    Raises:
        ConfigError: It is not found, or makes something else than `kind`.
    """
    made = find(path).make()
    if not isinstance(made, kind):
        raise ConfigError(
            f"recipe {path!r} makes a {type(made).__name__}, a {kind.__name__} is needed",
            "`ovos-ray train` takes trainables, `ovos-ray sweep` takes search spaces",
        )
    return made


def list_recipes(package: str) -> list[Recipe]:
    """Returns all recipes in a package, such as `trainables`, by module and order of definition."""
    top = _import(package)
    if top is None or not hasattr(top, "__path__"):
        return []
    recipes = []
    for info in sorted(pkgutil.iter_modules(top.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package}.{info.name}")
        for name, function in _functions(module):
            path = module.__name__ if name == info.name else f"{module.__name__}.{name}"
            recipes.append(Recipe(path, function))
    return recipes


def _import(path: str) -> ModuleType | None:
    """Imports a module; None if it (or a package on the way) does not exist. Errors inside it are not hidden."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and (path == error.name or path.startswith(error.name + ".")):
            return None
        raise


def _functions(module: ModuleType) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name, member in vars(module).items():
        if name.startswith("_") or not inspect.isfunction(member) or member.__module__ != module.__name__:
            continue
        if not inspect.signature(member).parameters:
            yield name, member
