"""Finds recipes and studies by module path, so that a user's own module works like the ones that travel along.

`trainables.one_shot` is the function `one_shot` in that module; `trainables.one_shot.xmem` another function there.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ovos_ray.errors import ConfigError

__all__ = ["Recipe", "list_recipes", "make"]

Made = TypeVar("Made")


@dataclass(frozen=True)
class Recipe:
    """A function that makes a configuration or a study.

    Attributes:
        path: What is typed on the command line.
        summary: The first line of its docstring.
    """

    path: str
    summary: str


@contextmanager
def _from_here() -> Iterator[None]:
    """Lets modules be found in the current folder too, last: nothing there takes the place of an installed package."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:  # the last of its kind: it may stand further up as well
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def make(path: str, kind: type[Made]) -> Made:
    """Finds a recipe and calls it. This runs the code of the module that was named, and of no other.

    Raises:
        ConfigError: It is not found, or makes something else than `kind`.
    """
    with _from_here():
        made = _find(path)()
    if not isinstance(made, kind):
        raise ConfigError(
            f"recipe {path!r} makes a {type(made).__name__}, a {kind.__name__} is needed",
            "`ovos-ray train` takes trainables, `ovos-ray sweep` takes search spaces",
        )
    return made


def _find(path: str) -> Callable[[], Any]:
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
    return functions[name]


def _hint(path: str) -> str:
    """Names recipes of the same package; without one, those that travel along and end alike or read alike."""
    top = path.partition(".")[0]
    if known := [recipe.path for recipe in list_recipes(top)]:
        return f"did you mean {', '.join(difflib.get_close_matches(path, known, 3, 0.4) or known)}?"
    known = [recipe.path for package in ("trainables", "search_spaces") for recipe in list_recipes(package)]
    near = [name for name in known if name.endswith(f".{path}")][:3] or difflib.get_close_matches(path, known, 3, 0.5)
    return f"did you mean {', '.join(near)}?" if near else f"start in the folder that holds {top}/"


def list_recipes(package: str) -> list[Recipe]:
    """Returns all recipes in a package, such as `trainables`, by module and order of definition.

    Its files are read, not run.
    """
    with _from_here():
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = (spec.submodule_search_locations if spec is not None else None) or []
    modules = sorted((path for place in places for path in Path(place).glob("*.py")), key=lambda path: path.stem)
    recipes = []
    for file in modules:
        for function in _public_functions(file) if file.stem.isidentifier() else []:
            path = f"{package}.{file.stem}"
            path = path if function.name == file.stem else f"{path}.{function.name}"
            recipes.append(Recipe(path, (ast.get_docstring(function) or "").partition("\n")[0]))
    return recipes


def _public_functions(file: Path) -> Iterator[ast.FunctionDef]:
    """Yields the functions of a file that may be recipes: without underscore, without arguments."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return  # whoever names it hears of it
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.unparse(node.args):
            yield node


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
