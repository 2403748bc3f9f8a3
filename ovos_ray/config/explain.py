"""Every setting in words: what it means, its default, what it may be, and how a configuration differs.

The meaning is the text below a setting in its dataclass, which Python itself throws away: it is read from the source.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from ovos_ray.config.method_settings import INITS
from ovos_ray.config.overrides import flatten
from ovos_ray.config.roles import AtLeast, Fraction, declared
from ovos_ray.config.settings import ExperimentConfig
from ovos_ray.config.strategies import NETWORKS

__all__ = ["Meaning", "explain", "written"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "network.name": tuple(NETWORKS),
    "network.init": (*INITS, "FILE"),
    "method.backward": ("T-step", "1-step", "2-step", "3-step"),
}


@dataclass(frozen=True)
class Meaning:
    """What is known of a setting.

    Attributes:
        key: Its dotted key.
        text: What it means; one paragraph.
        choices: What it may be, where that is a list; empty otherwise.
        limits: Its range in words, such as `at least 1`; empty if there is none.
        default: Of `ExperimentConfig()`; None also where the group it is in is absent by default.
    """

    key: str
    text: str
    choices: tuple[str, ...]
    limits: str
    default: Any


def written(value: Any) -> str:
    """Returns a value as an override is written on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


@functools.cache
def explain() -> dict[str, Meaning]:
    """Returns what every setting means, by dotted key, in order of declaration."""
    defaults = flatten(ExperimentConfig())
    found = {}
    for key, owner, kind, marks in declared(ExperimentConfig):
        text, choices = _texts(owner).get(key.rpartition(".")[2], ""), _CHOICES.get(key) or _choices(kind)
        found[key] = Meaning(key, text, choices, _limits(marks), defaults.get(key))
    return found


@functools.cache
def _texts(tree: type) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(tree))).body
    assert isinstance(node, ast.ClassDef)
    return {
        item.target.id: " ".join(after.value.value.split())
        for item, after in zip(node.body, node.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


def _choices(kind: Any) -> tuple[str, ...]:
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    found = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    found += ["true", "false"] if bool in parts else []
    return tuple(map(str, found)) + (("none",) if found and type(None) in parts else ())


def _limits(marks: Sequence[Any]) -> str:
    least = next((mark.least for mark in marks if isinstance(mark, AtLeast)), None)
    return "from 0 to 1" if Fraction in marks else "" if least is None else f"at least {least:g}"
