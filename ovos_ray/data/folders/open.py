"""Layouts of dataset folders by name, and how the one on disk is recognised and opened.

A further layout is a subclass of `DatasetFolder` in a file of its own, and an entry in `LAYOUTS`.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.burst import Burst
from ovos_ray.data.folders.coco import Coco
from ovos_ray.data.folders.cvat_masks import CvatMasks
from ovos_ray.data.folders.cvat_xml import CvatXml
from ovos_ray.data.folders.davis import Davis2016, Davis2017, Vost
from ovos_ray.data.folders.description import DatasetDescription, described_names, find_description
from ovos_ray.data.folders.label_studio import LabelStudio
from ovos_ray.data.folders.plain_folder import PlainFolder
from ovos_ray.data.folders.static_images import StaticImages
from ovos_ray.data.folders.youtube_vis import YouTubeVIS
from ovos_ray.data.folders.youtube_vos import YouTubeVOS
from ovos_ray.data.shards.shard_folder import ShardFolder, are_shards
from ovos_ray.errors import DataError
from ovos_ray.storage import location_of

__all__ = ["LAYOUTS", "DatasetFolder", "describe", "open_dataset"]

LAYOUTS: dict[str, type[DatasetFolder]] = {
    kind.layout: kind
    for kind in (
        *(Davis2017, Davis2016, YouTubeVOS, CvatMasks, Vost, YouTubeVIS, Coco, Burst),
        *(CvatXml, LabelStudio),
        *(StaticImages, PlainFolder),
    )
}
"""In the order in which they are tried; a plain folder has no marks of its own, and is last."""


def describe(dataset: str) -> DatasetDescription:
    """Returns the description with this name, in this file (`*.py`), or a bare one of this layout.

    Raises:
        DataError: There is none, or the file does not define it.
    """
    description = find_description(dataset)
    if description is not None:
        return description
    if dataset in LAYOUTS:
        return LAYOUTS[dataset].bare(dataset)
    close = difflib.get_close_matches(dataset, (*described_names(), *LAYOUTS), 1)
    raise DataError(
        f"no dataset {dataset!r}; described are: {', '.join(described_names()) or 'none'}; "
        f"layouts: {', '.join(LAYOUTS)}",
        f"did you mean {close[0]!r}?" if close else "give the path of a description, or a layout such as 'folder'",
    )


def open_dataset(root: str | Path, dataset: str = "auto", layout: str | None = None) -> DatasetFolder:
    """Opens a dataset folder, or shards as one.

    Args:
        root: The dataset's folder, one above it, or one of its parts; or a folder or bucket URI of shards.
        dataset: Name or file of a description, a layout, or `auto` to recognise the layout. With `layout`, any name.
        layout: Overrides the description's layout; `auto` and None leave it.

    Raises:
        DataError: The folder does not exist, or holds no dataset of that layout.
        StorageError: The bucket cannot be reached.
    """
    given = None if layout in (None, "auto") else layout
    if given is not None and given not in LAYOUTS:
        raise DataError(f"no layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    root = location_of(root)
    if are_shards(root):
        return ShardFolder(root, given)
    root = Path(os.path.abspath(Path(root).expanduser()))
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder", "give the folder that holds the dataset")
    known = _known(dataset, given)
    wanted = given or (None if known is None else known.layout)
    kinds = [kind for kind in LAYOUTS.values() if kind.recognised] if wanted is None else [LAYOUTS[wanted]]
    if (first := next(_places(root, kinds), None)) is not None:
        kind, folder = first
        return kind(folder, replace(known or kind.bare(folder.name), layout=kind.layout))
    expected = "\n".join(f"  {kind.layout}: {kind.expected}" for kind in kinds)
    tried = " or ".join(kind.layout for kind in kinds)
    like = next((kind.layout for kind, _ in _places(root, LAYOUTS.values())), None)
    raise DataError(
        f"{root}: no dataset of layout {tried} here; found {_found(root)}; expected\n{expected}",
        None if like is None else f"it looks like layout {like}: add --layout {like}",
    )


def _known(dataset: str, layout: str | None) -> DatasetDescription | None:
    """Returns what is known of a dataset before it is opened; with a layout given, it may have any name."""
    if dataset == "auto":
        return None
    found = find_description(dataset)
    if found is None:
        found = describe(dataset) if layout is None else LAYOUTS[layout].bare(dataset)
    if layout is None and found.layout not in LAYOUTS:
        raise DataError(f"the description of {dataset!r} has layout {found.layout!r}; there are: {', '.join(LAYOUTS)}")
    return found


def _places(root: Path, kinds: Iterable[type[DatasetFolder]]) -> Iterator[tuple[type[DatasetFolder], Path]]:
    """Yields where datasets begin, at, above or below `root`; the first is the one that is meant."""
    return ((kind, folder) for kind in kinds for folder in kind.places(root) if kind.begins_at(folder))


def _found(root: Path) -> str:
    """Says what lies in a folder, for whoever took it for a dataset."""
    entries = sorted(root.iterdir(), key=lambda path: path.name)
    folders = [f"{path.name}/" for path in entries if path.is_dir()]
    suffixes = Counter(path.suffix.lower() or path.name for path in entries if not path.is_dir())
    shown = [*folders[:6], *(["…"] if len(folders) > 6 else [])]
    shown += [f"{number} {suffix} file{'s' * (number > 1)}" for suffix, number in suffixes.most_common(4)]
    return ", ".join(shown) or "nothing"
