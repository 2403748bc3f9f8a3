"""Finds recipes and studies by module path, so that a user's own module works like the ones that travel along.

`trainables.one_shot` is the function `one_shot` in that module; `trainables.one_shot.xmem` another function there. The
modules of `trainables` and `search_spaces` lie in the current folder or come with this program; in that order.
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
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ovos_ray.errors import ConfigError
from ovos_ray.paths import shipped

__all__ = ["PACKAGES", "Recipe", "copy_of", "list_recipes", "make", "require_shipped"]

Made = TypeVar("Made")

PACKAGES = ("trainables", "search_spaces")
"""The packages of recipes that come with this program; a user's own folder of that name adds to them."""


@dataclass(frozen=True)
class Recipe:
    """A function that makes a configuration or a study.

    Attributes:
        path: What is typed on the command line.
        summary: The first line of its docstring.
    """

    path: str
    summary: str


class _Finder(MetaPathFinder):
    """Finds the modules of `PACKAGES`: first in the current folder, then among those that come with this program."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, *inner = name.split(".")
        if package not in PACKAGES:
            return None
        places = _places(package)
        if inner:
            return PathFinder.find_spec(name, [str(place.joinpath(*inner[:-1])) for place in places])
        found = next((place for place in places if (place / "__init__.py").is_file()), None)
        if found is None:
            return None
        return importlib.util.spec_from_file_location(
            name, found / "__init__.py", submodule_search_locations=[str(place) for place in places]
        )


def _places(package: str) -> list[Path]:
    """Returns the folders of one of `PACKAGES`, the user's first."""
    return [place for place in dict.fromkeys((Path.cwd() / package, shipped(package))) if place.is_dir()]


@contextmanager
def _from_here() -> Iterator[None]:
    """Lets modules be found in the current folder too, last: nothing there takes the place of an installed package."""
    here, finder = str(Path.cwd()), _Finder()
    sys.path.append(here)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:  # the last of its kind: it may stand further up as well
        sys.meta_path.remove(finder)
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


def require_shipped(path: str, source: str) -> None:
    """Makes sure that a recipe that a file names came with this program: a file is data, and chooses no code to run.

    Raises:
        ConfigError: It is another module, or one of that name lies in the current folder.
    """
    package, *inner = path.split(".")
    own, ours = Path.cwd() / package, shipped(package)
    there = inner and package in PACKAGES and (ours / f"{inner[0]}.py").is_file()
    hidden = (
        there
        and own.resolve() != ours.resolve()
        and any((own / name).exists() for name in ("__init__.py", inner[0], f"{inner[0]}.py"))
    )
    if not there or hidden:
        raise ConfigError(
            f"{source} names the recipe {path!r}, {'of the current folder' if hidden else 'not one of this program'}; "
            "files of settings run no code",
            f"name it yourself, if you know whose it is: ovos-ray train {path} KEY=VALUE …",
        )


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
    """Suggests recipes: those of the same package; if there is none, shipped ones that end or read alike."""
    if known := [recipe.path for recipe in list_recipes(path.partition(".")[0])]:
        return f"did you mean {', '.join(difflib.get_close_matches(path, known, 3, 0.4) or known)}?"
    known = [recipe.path for package in PACKAGES for recipe in list_recipes(package)]
    near = [name for name in known if name.endswith(f".{path}")][:3] or difflib.get_close_matches(path, known, 3, 0.5)
    own = f"a module of your own lies in the folder you start in, here {Path.cwd()}"
    return f"did you mean {', '.join(near)}?" if near else f"`ovos-ray ls` lists what there is; {own}"


def list_recipes(package: str) -> list[Recipe]:
    """Returns all recipes in a package, such as `trainables`, by module and order of definition.

    Its files are read, not run.
    """
    if package in PACKAGES:
        places = [str(place) for place in _places(package)]
    else:
        with _from_here():
            spec = importlib.util.find_spec(package) if package.isidentifier() else None
        places = list((spec.submodule_search_locations if spec is not None else None) or [])
    files: dict[str, Path] = {}
    for file in (file for place in places for file in Path(place).glob("*.py")):
        files.setdefault(file.stem, file)  # the first place's takes the name
    recipes = []
    for stem, file in sorted(files.items()):
        for function in _public_functions(file) if stem.isidentifier() else []:
            path = f"{package}.{stem}"
            path = path if function.name == stem else f"{path}.{function.name}"
            recipes.append(Recipe(path, (ast.get_docstring(function) or "").partition("\n")[0]))
    return recipes


def copy_of(path: str) -> str:
    """Returns the source of a recipe as a module of its own: its function with what it uses, and its imports.

    Raises:
        ConfigError: It is not found.
    """
    with _from_here():
        function = _find(path)
    source = inspect.getsource(sys.modules[function.__module__])
    lines, nodes = source.splitlines(), ast.parse(source).body
    # A statement goes with the comments before it, an assignment with the text that explains it.
    groups: list[list[ast.stmt]] = []
    for node in nodes:
        explains = isinstance(node, ast.Expr) and groups and isinstance(groups[-1][0], ast.Assign)
        groups[-1].append(node) if explains else groups.append([node])
    defined = {name: group[0] for group in groups for name in _defines(group[0])}
    wanted, open_names = set[ast.stmt](), [function.__name__, "annotations"]
    while open_names:
        needed = defined.get(open_names.pop())
        if needed is not None and needed not in wanted:
            wanted.add(needed)
            open_names += [part.id for part in ast.walk(needed) if isinstance(part, ast.Name)]
    start, kept = 0, [f'"""A copy of `{path}`, to be edited: `ovos-ray ls` lists the original."""']
    for group in groups:
        end = group[-1].end_lineno or start
        if group[0] in wanted:
            kept += lines[start:end]
        start = end
    return "\n".join(kept).rstrip() + "\n"


def _defines(node: ast.stmt) -> list[str]:
    """Returns the names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]


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
