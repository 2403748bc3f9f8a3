"""Reads and changes trees of dataclasses by dotted keys: the generic half of the configuration.

`method.backward=T-step` on a command line, an axis of a search space and a stored JSON file all end here.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ovos_ray.errors import ConfigError

__all__ = ["flatten", "from_dict", "override", "to_dict"]

Config = TypeVar("Config")
# Python reads a tree's annotations anew each time, which took a sixth of a large study's expansion.
_hints = functools.cache(typing.get_type_hints)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the configuration as plain nested dicts, lists, strings and numbers (JSON-ready)."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def flatten(config: Any) -> dict[str, Any]:
    """Returns the leaves by dotted key, in order of declaration: the names used by overrides and trackers."""
    leaves: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            leaves.update({f"{item.name}.{key}": leaf for key, leaf in flatten(value).items()})
        else:
            leaves[item.name] = value
    return leaves


def override(config: Config, overrides: Mapping[str, Any] | Sequence[str]) -> Config:
    """Returns a copy with some leaves replaced.

    Args:
        config: Any configuration dataclass.
        overrides: `{"method.backward": "T-step"}`, or command-line words such as `method.backward=T-step`. Strings
            are read as the leaf's type; tuples as comma-separated values or JSON; `none` clears an optional leaf.

    Raises:
        ConfigError: A key is unknown (with the nearest known one), or a value has the wrong type.
    """
    if not isinstance(overrides, Mapping):
        pairs = {}
        for word in overrides:
            key, separator, text = word.partition("=")
            if not separator:
                raise ConfigError(f"{word!r} is not an override", "write key=value, such as train.steps=500")
            pairs[key.strip()] = text
        overrides = pairs
    for key, value in overrides.items():
        config = _replace(config, key.split("."), value, key, config)
    return config


def _replace(config: Any, path: list[str], value: Any, key: str, root: Any) -> Any:
    types_by_name = _field_types(type(config))
    name = path[0]
    if name not in types_by_name:
        known = list(flatten(root))
        # Also compare last parts, so that `steps` finds `train.steps`.
        near = [k for k in known if k.endswith("." + key)] + difflib.get_close_matches(key, known, 3, 0.5)
        hint = f"did you mean {', '.join(dict.fromkeys(near))}?" if near else "`ovos-ray show RECIPE` lists all keys"
        raise ConfigError(f"unknown configuration key {key!r}", hint)
    current, kind = getattr(config, name), types_by_name[name]
    if len(path) > 1:
        if current is None:
            choices = [a for a in get_args(kind) if dataclasses.is_dataclass(a)]
            if len(choices) == 1 and isinstance(choices[0], type):
                current = choices[0]()
        if not dataclasses.is_dataclass(current):
            raise ConfigError(f"unknown configuration key {key!r}: {name!r} has no parts", f"set {name}=… itself")
        return dataclasses.replace(config, **{name: _replace(current, path[1:], value, key, root)})
    if dataclasses.is_dataclass(kind):
        raise ConfigError(f"{key!r} is a group of settings", f"set one of {', '.join(_field_types(kind))} in it")
    return dataclasses.replace(config, **{name: _convert(value, kind, key)})


def _field_types(cls: Any) -> dict[str, Any]:
    hints = _hints(cls)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Rebuilds a configuration written by `to_dict`.

    Raises:
        ConfigError: A key is unknown or a value has the wrong type.
    """
    return typing.cast(Config, _convert(values, cls, ""))


def _convert(value: Any, kind: Any, key: str) -> Any:
    """Reads `value` (typed, or text from the command line) as `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_group(value, kind, key)
    if origin in (Union, types.UnionType):
        empty = value is None or (isinstance(value, str) and value.lower() in ("", "none", "null"))
        if empty and type(None) in arguments:
            return None
        *others, last = (a for a in arguments if a is not type(None))
        for kind in others:
            with suppress(ConfigError):
                return _convert(value, kind, key)
        return _convert(value, last, key)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{key} = {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, key)
    return _convert_scalar(value, kind, key)


def _convert_group(value: Any, kind: type, key: str) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and hasattr(kind, "from_text"):
        return kind.from_text(value)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{key} = {value!r} is not a group of settings",
            f"set one of {', '.join(f'{key}.{name}' for name in _field_types(kind))}",
        )
    known = _field_types(kind)
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ConfigError(
                f"unknown configuration key {f'{key}.{name}'.lstrip('.')!r}",
                f"did you mean {near[0]}?" if near else None,
            )
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in value and _is_needed(item)]
    if missing:
        raise ConfigError(f"{key} lacks {', '.join(missing)}: {dict(value)!r}", "give each of them")
    return kind(**{name: _convert(v, known[name], f"{key}.{name}".lstrip(".")) for name, v in value.items()})


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert_tuple(value: Any, arguments: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = _written_list(value)
    elif isinstance(value, Path):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{key} = {value!r} is not a list", "write a,b,c or JSON such as [[0, 5], [0.1, 10]]")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(v, arguments[0], key) for v in value)
    if len(value) != len(arguments):
        raise ConfigError(
            f"{key} = {list(value)!r} should have {len(arguments)} values",
            "nested lists are written as JSON, such as [[0, 5], [0.1, 10]], or as `ovos-ray show` prints them",
        )
    return tuple(_convert(v, a, key) for v, a in zip(value, arguments, strict=True))


def _written_list(text: str) -> list[Any] | tuple[Any, ...]:
    """Reads `a,b,c`, JSON, or tuples as `ovos-ray show` prints them."""
    for read in (json.loads, ast.literal_eval):
        with suppress(
            ValueError, SyntaxError, TypeError, RecursionError, MemoryError
        ):  # all that a text can do to them
            found = read(text)
            if isinstance(found, list | tuple):
                return found
            return [found if isinstance(found, str) else text.strip()]  # a folder may be called 2024
    return [part.strip() for part in text.split(",") if part.strip()]


def _convert_scalar(value: Any, kind: Any, key: str) -> Any:
    wrong = ConfigError(f"{key} = {value!r} is not {'an' if kind is int else 'a'} {kind.__name__}")
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "yes", "1", "false", "no", "0"):
            return value.lower() in ("true", "yes", "1")
        raise wrong
    if kind is str:
        if isinstance(value, Path):
            return str(value)
        if not isinstance(value, str):
            raise wrong
        return value
    if isinstance(value, bool):
        raise wrong
    try:
        if kind is int and isinstance(value, str) and re.fullmatch(r"[+-]?\d[\d_]*", value.strip()) is None:
            number: float = float(value)  # 1e5 is a natural way to write a number of steps
        else:
            number = kind(value)
        if kind is int and number != int(number):
            raise wrong
        return kind(number)
    except (TypeError, ValueError, OverflowError):  # also of what is no number, or infinite
        raise wrong from None
