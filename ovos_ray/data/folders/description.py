"""What is known of a dataset before it is opened: where it comes from, its licence, splits and quirks.

Descriptions are plain Python files (`datasets/davis2017.py`) with one constant, `DATASET`; a user's own is named by
its path. They are loaded as files: the folder is no package, so that it cannot shadow an installed `datasets`.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import ovos_ray
from ovos_ray.errors import DataError

__all__ = ["LAYOUTS", "DatasetDescription", "Layout", "describe", "described_names"]

Layout: TypeAlias = Literal["davis2016", "davis2017", "youtube-vos", "static", "folder"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """One dataset.

    Attributes:
        name: As in `ovos-ray pack NAME`.
        layout: How its folder is read.
        title: Full name.
        source: Where to get it.
        licence: Terms of use; read the original.
        splits: What each split holds.
        frame_interval: Video frames between two frames of the training split; D is divided by it.
        label_budget: What labelling one frame per video amounts to.
        excluded: Videos left out of the training split.
        notes: What else a user should know.
    """

    name: str
    layout: Layout
    title: str = ""
    source: str = ""
    licence: str = ""
    splits: Mapping[str, str] = field(default_factory=dict)
    frame_interval: int = 1
    label_budget: str = ""
    excluded: tuple[str, ...] = ()
    notes: str = ""


def _folders() -> list[Path]:
    """Where descriptions lie: the working directory first, then the checkout."""
    return [Path.cwd() / "datasets", Path(ovos_ray.__file__).resolve().parents[1] / "datasets"]


def described_names() -> tuple[str, ...]:
    """Names of the descriptions at hand, sorted."""
    return tuple(sorted({path.stem for folder in _folders() for path in folder.glob("*.py")}))


def describe(dataset: str) -> DatasetDescription:
    """Returns the description with this name, in this file (`*.py`), or a bare one of this layout.

    Raises:
        DataError: There is none, or the file does not define it.
    """
    if dataset.endswith(".py"):
        return _load(Path(dataset))
    for folder in _folders():
        if (folder / f"{dataset}.py").is_file():
            return _load(folder / f"{dataset}.py")
    for layout in LAYOUTS:
        if dataset == layout:
            return DatasetDescription(name=dataset, layout=layout)
    known = (*described_names(), *LAYOUTS)
    close = difflib.get_close_matches(dataset, known, 1)
    raise DataError(
        f"no dataset {dataset!r}; described are: {', '.join(described_names()) or 'none'}; "
        f"layouts: {', '.join(LAYOUTS)}",
        f"did you mean {close[0]!r}?" if close else "give the path of a description, or a layout such as 'folder'",
    )


def _load(path: Path) -> DatasetDescription:
    spec = importlib.util.spec_from_file_location(f"ovos_dataset_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise DataError(f"{path}: no such dataset description")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path}: the dataset description fails with {error!r}") from error
    found = getattr(module, "DATASET", None)
    if not isinstance(found, DatasetDescription):
        raise DataError(f"{path}: defines no DATASET = DatasetDescription(…)")
    return found
