"""DAVIS 2016 and 2017 folders: JPEGImages, Annotations and lists of videos in ImageSets."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import ClassVar, Literal

from ovos_ray.data.folders.base import PNG, DatasetFolder, files_in, match_masks
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError

__all__ = ["Davis2016", "Davis2017", "Vost"]

_DOWNLOADS = frozenset({"trainval", "test-dev", "test-challenge"})


class Davis2017(DatasetFolder):
    """DAVIS 2017: JPEGImages/480p, Annotations/480p, ImageSets/2017/SPLIT.txt; trainval and test-dev may lie apart."""

    layout = "davis2017"
    expected = "JPEGImages/480p/VIDEO/00000.jpg, Annotations/480p/VIDEO/00000.png, ImageSets/2017/train.txt"
    kept_by_server = True
    lists: ClassVar[tuple[str, ...]] = ("2017", "")
    masks_hold: ClassVar[Literal["ids", "one object", "ids and void"]] = "ids"

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        sets = folder / "ImageSets"
        return (folder / "JPEGImages").is_dir() and any(any((sets / name).glob("*.txt")) for name in cls.lists)

    @functools.cached_property
    def _sets(self) -> dict[str, Path]:
        """List files by split. `test-dev` beside `trainval` adds the split that this lacks."""
        found: dict[str, Path] = {}
        apart = _DOWNLOADS - {self.root.name} if self.root.name in _DOWNLOADS else ()
        siblings = [self.root.with_name(name) for name in sorted(apart)]
        for base in (self.root, *(folder for folder in siblings if self.begins_at(folder))):
            name = next((name for name in self.lists if any((base / "ImageSets" / name).glob("*.txt"))), "")
            for path in sorted((base / "ImageSets" / name).glob("*.txt")):
                found.setdefault(path.stem, path)
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return tuple(self._sets)

    def _listed_in(self, split: str) -> Path:
        return self._sets[split]

    def _list(self, split: str) -> list[str]:
        # The lists of the 2016 release hold path pairs: /JPEGImages/480p/bear/00000.jpg /Annotations/…/00000.png
        lines = [line.split()[0] for line in self._sets[split].read_text(encoding="utf-8").splitlines() if line.strip()]
        return [Path(line).parent.name if "/" in line else line for line in lines]

    def _open(self, split: str, name: str) -> Video:
        path = self._sets[split]
        base = next(parent for parent in path.parents if (parent / "JPEGImages").is_dir())
        sizes = ["480p", "Full-Resolution", "1080p", ""]
        size = next((size for size in sizes if (base / "JPEGImages" / size / name).is_dir()), None)
        if size is None:
            raise DataError(
                f"{base / 'JPEGImages' / '480p' / name}: missing frames of video {name!r}, which {path} lists",
                "complete the download, or take the video off the list",
            )
        frames = files_in(base / "JPEGImages" / size / name)
        masks = match_masks(name, frames, files_in(base / "Annotations" / size / name, PNG))
        return Video(name, tuple(frames), None, masks, self.masks_hold)


class Davis2016(Davis2017):
    """DAVIS 2016: as 2017, with the lists in ImageSets/480p; masks of 0 and 255, all objects are one."""

    layout = "davis2016"
    expected = "JPEGImages/480p/VIDEO/00000.jpg, Annotations/480p/VIDEO/00000.png, ImageSets/480p/train.txt"
    lists = ("480p", "1080p", "2016", "")
    masks_hold = "one object"


class Vost(Davis2017):
    """VOST: frames and masks without a size's folder, lists in ImageSets; 255 is void, also where no object shows."""

    layout = "vost"
    expected = "JPEGImages/VIDEO/frame00012.jpg, Annotations/VIDEO/frame00012.png, ImageSets/train.txt"
    lists = ("",)
    masks_hold = "ids and void"
    recognised = False
