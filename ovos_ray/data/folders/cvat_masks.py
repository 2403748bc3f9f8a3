"""CVAT's "Segmentation mask" export: instances painted in the colours of PASCAL VOC."""

from __future__ import annotations

import functools
from pathlib import Path

from ovos_ray.data.folders.base import PNG, DatasetFolder, files_in, folders_in, has_images, match_masks
from ovos_ray.data.folders.drawn_masks import VOC_COLOURS, ColourMasks
from ovos_ray.data.folders.video import Video

__all__ = ["CvatMasks"]


class CvatMasks(DatasetFolder):
    """An export of a task with its images: `JPEGImages/` and `SegmentationObject/`, flat (one video) or by folder.

    CVAT numbers the instances of each frame for itself: which is which in another frame is not in this export.
    """

    layout = "cvat-masks"
    expected = "JPEGImages/[VIDEO/]FRAME.jpg and SegmentationObject/[VIDEO/]FRAME.png, exported with images"

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        return (folder / "SegmentationObject").is_dir() and (folder / "JPEGImages").is_dir()

    @functools.cached_property
    def _frames(self) -> dict[str, Path]:
        base = self.root / "JPEGImages"
        found = {folder.name: folder for folder in folders_in(base) if has_images(folder)}
        return found if found or not has_images(base) else {self.root.name: base}

    def _list(self, split: str) -> list[str]:
        return list(self._frames)

    def _open(self, split: str, name: str) -> Video:
        folder = self._frames[name]
        frames = files_in(folder)
        own = self.root / "SegmentationObject" / folder.relative_to(self.root / "JPEGImages")
        masks = match_masks(name, frames, files_in(own, PNG))
        return Video(name, tuple(frames), None, masks, drawn=ColourMasks(masks, VOC_COLOURS))
