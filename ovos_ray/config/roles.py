"""What a setting means beside its value stands in its annotation, and everything that depends on it is read from there.

    checkpoint_every: Annotated[int, AtLeast(1), Bookkeeping] = 500

Every setting has one role: whether it is part of the digest (`digest.py`), and whether configurations that differ in it
are different rows of a report (`report/numbers/comparison.py`). Beside it stand its range (`run/checks.py`) and traits:
what a pretraining inherits (`run/pretraining.py`), what may change in the middle of a run (`study/population.py`), and
what decides the cost of a run (`study/price.py`).

A new setting that leaves earlier runs what they were is marked `Added(before=…)`: at that value it is no part of the
digest, so that stored runs keep theirs.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from ovos_ray.errors import ConfigError

__all__ = [
    "Added",
    "AtLeast",
    "Bookkeeping",
    "Computes",
    "Fraction",
    "Identifies",
    "Inherited",
    "Live",
    "Located",
    "Machine",
    "Member",
    "Open",
    "Pinned",
    "Priced",
    "Role",
    "Setting",
    "Trait",
    "check_ranges",
    "declared",
    "settings_of",
]


class Role:
    """Exactly one stands at every setting.

    Attributes:
        digested: Whether runs that differ in it compute something else.
        is_axis: Whether they are different configurations, that is rows of a report.
    """

    digested: ClassVar[bool]
    is_axis: ClassVar[bool]


class Computes(Role):
    """Decides what is computed."""

    digested = is_axis = True


class Identifies(Role):
    """Tells apart runs of one configuration: the seed, and where in a run a segment lies."""

    digested, is_axis = True, False


class Bookkeeping(Role):
    """Decides where things lie, what they are called, and how often something is written down."""

    digested = is_axis = False


class Machine(Role):
    """Decides where and how fast is computed, not what: a run may be resumed with another value."""

    digested = is_axis = False


class Member(Role):
    """Which member of a population: a row of its own, whatever the member computes."""

    digested, is_axis = False, True


class Trait:
    """Any number of them stand beside the role."""


class Located(Trait):
    """A path, or several. Only its last part is compared: the same folder lies elsewhere on another machine."""


class Inherited(Trait):
    """A pretraining has the value of the run that asks for it first."""


class Pinned(Trait):
    """A digest of what lies at a path, filled in when a run is prepared. It is compared instead of the path."""


class Live(Trait):
    """May change in the middle of a run, as a population does; what a checkpoint holds fits any value."""


class Priced(Trait):
    """Decides how long a run takes or how much memory it needs."""


@dataclass(frozen=True)
class AtLeast:
    """The smallest value that means something; None, where it is allowed, passes."""

    least: float

    def check(self, key: str, value: Any) -> None:
        """Raises a `ConfigError` for a value out of range."""
        if value is not None and value < self.least:
            raise ConfigError(f"{key} = {value} is out of range", f"give {self.least:g} or more")


class Fraction:
    """A number in 0 … 1; None, where it is allowed, passes."""

    @staticmethod
    def check(key: str, value: float | None) -> None:
        """Raises a `ConfigError` for a value out of range."""
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{key} = {value} is out of range", "give a fraction in 0 … 1")


@dataclass(frozen=True)
class Added:
    """The setting came later than the oldest stored runs. These were made as it is done now with the value `before`."""

    before: Any


@dataclass(frozen=True)
class Open:
    """At `value` the setting is open until the run is prepared, which fills in what holds there (`run/pin.py`).

    An open one agrees with every other value, and is part of the digest as the value `counts_as`.
    """

    value: Any
    counts_as: Any


@dataclass(frozen=True)
class Setting:
    """What an annotation says of one setting.

    Attributes:
        role: One of the roles.
        traits: Any of the traits.
        range: `AtLeast` or `Fraction`, if values have a range.
        added: If earlier configurations have no such setting.
        open: If a value leaves it to what the run finds.
    """

    role: type[Role]
    traits: frozenset[type[Trait]]
    range: Any = None
    added: Added | None = None
    open: Open | None = None

    def __contains__(self, mark: type[Role | Trait]) -> bool:
        return mark is self.role or mark in self.traits


def declared(tree: type, above: str = "") -> Iterator[tuple[str, type, Any, list[Any]]]:
    """Yields dotted key, dataclass, type and marks of every setting of a tree of dataclasses, in order of declaration.

    A group that may be absent is also a setting itself, which `flatten` shows as None where it is.
    """
    for name, hint in typing.get_type_hints(tree, include_extras=True).items():
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
        group = next((part for part in parts if dataclasses.is_dataclass(part)), None)
        if group is None or marks:
            yield f"{above}{name}", tree, kind, marks
        if isinstance(group, type):
            yield from declared(group, f"{above}{name}.")


@functools.cache
def settings_of(tree: type) -> Mapping[str, Setting]:
    """Returns the settings of a tree of dataclasses by dotted key, in order of declaration.

    Raises:
        TypeError: A setting has no role, or more than one.
    """
    return {
        key: _setting(f"{owner.__name__}.{key.rpartition('.')[2]}", marks) for key, owner, _, marks in declared(tree)
    }


def _setting(name: str, marks: list[Any]) -> Setting:
    classes = [mark for mark in marks if isinstance(mark, type)]
    roles = [mark for mark in classes if issubclass(mark, Role)]
    if len(roles) != 1:
        raise TypeError(f"{name} has {len(roles)} roles; write Annotated[TYPE, ROLE], see config/roles.py")
    return Setting(
        roles[0],
        frozenset(mark for mark in classes if issubclass(mark, Trait)),
        next((mark for mark in marks if mark is Fraction or isinstance(mark, AtLeast)), None),
        next((mark for mark in marks if isinstance(mark, Added)), None),
        next((mark for mark in marks if isinstance(mark, Open)), None),
    )


def check_ranges(tree: type, values: Mapping[str, Any]) -> None:
    """Checks every value, as `flatten` names them, that has a range.

    Raises:
        ConfigError: One is out of range.
    """
    for key, setting in settings_of(tree).items():
        if setting.range is not None and key in values:
            setting.range.check(key, values[key])
