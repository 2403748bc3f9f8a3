"""Descriptions of datasets, known before one is opened: where it comes from, its licence, splits and quirks.

Descriptions are plain Python files (`datasets/davis2017.py`) with one constant, `DATASET`; a user's own is named by
its path. They are read, never run, so that looking into a folder of them is safe.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ovos_ray.errors import DataError
from ovos_ray.paths import shipped

__all__ = ["DatasetDescription", "described_names", "find_description", "pack_command", "source_of"]


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """One dataset.

    Attributes:
        name: As in `ovos-ray pack NAME`.
        layout: How its folder is read: a name of `ovos_ray.data.folders.open.LAYOUTS`.
        title: Full name.
        source: Where to get it.
        licence: Terms of use; read the original.
        splits: What each split holds.
        frame_interval: Video frames between two frames of the training split; D is divided by it.
        label_budget: What labelling one frame per video amounts to.
        excluded: Videos left out of the training split.
        colours: Object ids by colour (`#rrggbb`), where masks are painted; see `drawn_masks.read_colours`.
        notes: What else a user should know.

    Raises:
        TypeError: A value has another type.
        ValueError: The frame interval is below 1.
    """

    name: str
    layout: str
    title: str = ""
    source: str = ""
    licence: str = ""
    splits: Mapping[str, str] = field(default_factory=dict)
    frame_interval: int = 1
    label_budget: str = ""
    excluded: tuple[str, ...] = ()
    colours: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self) -> None:
        texts = (self.name, self.layout, self.title, self.source, self.licence, self.label_budget, self.notes)
        if not all(isinstance(text, str) for text in (*texts, *self.excluded)):
            raise TypeError(f"description of {self.name!r}: expected texts, and `excluded` as a tuple of names")
        for colour, object_id in self.colours.items():
            if re.fullmatch("#[0-9a-f]{6}", str(colour)) is None or object_id not in range(255):
                raise ValueError(f"colours: {colour!r}: {object_id!r}, expected '#rrggbb' and an id of 0 … 254")
        if type(self.frame_interval) is not int or self.frame_interval < 1:
            raise ValueError(f"frame_interval = {self.frame_interval!r}, expected a whole number from 1 on")


def _folders() -> list[Path]:
    """Where descriptions lie: the current folder first, then what came along. A package called `datasets` is none."""
    folders = [Path.cwd() / "datasets", shipped("datasets")]
    return [folder for folder in folders if not (folder / "__init__.py").is_file()]


def described_names() -> tuple[str, ...]:
    """Names of the descriptions at hand, sorted."""
    return tuple(sorted({path.stem for folder in _folders() for path in folder.glob("*.py")}))


def find_description(dataset: str) -> DatasetDescription | None:
    """Returns the description with this name or in this file (`*.py`), None if no file is called that.

    Raises:
        DataError: The file is missing, fails, or does not define it.
    """
    if dataset.endswith(".py"):
        return _load(Path(dataset))
    found = _file_of(dataset)
    return None if found is None else _load(found)


def _file_of(name: str) -> Path | None:
    return next((path for folder in _folders() if (path := folder / f"{name}.py").is_file()), None)


def source_of(name: str) -> str | None:
    """Returns the text of the description with this name, None if there is none."""
    found = _file_of(name)
    return None if found is None else found.read_text(encoding="utf-8")


def pack_command(folder: str) -> str:
    """Returns the command that makes the shards of a folder, as far as its name says what it should hold."""
    name = PurePath(folder).name
    dataset, labels = name.removesuffix("_all"), " --labels all" if name.endswith("_all") else ""
    split = ""
    if dataset not in described_names():
        holding = [known for known in described_names() if dataset in _splits_of(known) and dataset not in _COMMON]
        dataset, split = (holding[0], f" --split {dataset}") if holding else ("DATASET", "")
    return f"ovos-ray pack {dataset} --root DIR{split}{labels} --out {folder}"


_COMMON = frozenset({"train", "val", "valid", "test"})


def _splits_of(dataset: str) -> Mapping[str, str]:
    try:
        description = find_description(dataset)
    except DataError:
        return {}
    return {} if description is None else description.splits


def _load(path: Path) -> DatasetDescription:
    """Reads a description without running it: descriptions of strangers are data."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such dataset description") from error
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: not a dataset description ({error})") from error
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and _is_dataset(node.targets)]
    if len(values) != 1 or not (isinstance(values[0], ast.Call) and not values[0].args):
        raise DataError(f"{path}: defines no DATASET = DatasetDescription(…)")
    try:
        return DatasetDescription(**{str(key.arg): ast.literal_eval(key.value) for key in values[0].keywords})
    except (TypeError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        raise DataError(
            f"{path}: the dataset description cannot be read ({error})",
            "give texts, numbers and tuples of them: the file is read, not run",
        ) from error


def _is_dataset(targets: list[ast.expr]) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "DATASET" for target in targets)
