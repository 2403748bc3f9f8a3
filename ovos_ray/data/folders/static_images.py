"""Static image folders: photographs with a mask beside each, for the pretraining of stage 0."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ovos_ray.data.folders.base import JPEG, DatasetFolder, files_in, folders_in
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError

__all__ = ["StaticImages"]


class StaticImages(DatasetFolder):
    """Static images: X.jpg with X.png beside it, flat or in folders (static/DUTS-TR, static/fss/CLASS).

    Every image is a video of one frame, named by its path without extension. The splits are `train` (all of them)
    and the folders.
    """

    layout = "static"
    of_images = True
    expected = "X.jpg and its mask X.png side by side, in this folder, in SET/ or in SET/CLASS/"

    @classmethod
    def places(cls, root: Path) -> Iterable[Path]:
        """Where such a dataset may begin; it has few marks, and further below much would match."""
        return root, root / "static"

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        below = folders_in(folder)[:3]
        for level in (folder, *below, *(child for parent in below for child in folders_in(parent)[:3])):
            images = files_in(level, JPEG)
            if images and images[0].with_suffix(".png").is_file():
                return True
        return False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return ("train", *(folder.name for folder in folders_in(self.root) if folder.name != "train"))

    def _list(self, split: str) -> list[str]:
        base = self.root if split == "train" else self.root / split
        found = (path for path in base.rglob("*") if path.suffix.lower() in JPEG)
        images = sorted(path for path in found if not any(p[0] == "." for p in path.relative_to(base).parts))
        alone = [path for path in images if not path.with_suffix(".png").is_file()]
        if alone:
            raise DataError(f"{alone[0]}: no mask {alone[0].stem}.png beside it ({len(alone)} such images)")
        return [path.relative_to(self.root).with_suffix("").as_posix() for path in images]

    def _open(self, split: str, name: str) -> Video:
        places = [self.root / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".JPG", ".JPEG")]
        image = next(place for place in places if place.is_file())
        return Video(name, (image,), None, {0: image.with_suffix(".png")}, "saliency")
