"""A plain folder of videos, as people make them: folders of frames or video files, with at least one mask each."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from ovos_ray.data.folders.base import JPEG, PNG, DatasetFolder, files_in, folders_in, has_images, match_masks
from ovos_ray.data.folders.video import VIDEO_SUFFIXES, Video
from ovos_ray.errors import DataError

__all__ = ["PlainFolder"]


class PlainFolder(DatasetFolder):
    """A folder of videos, each a folder of frames or a video file, with at least one mask each.

    Videos lie in the folder itself or in its `videos/`, `frames/` or `JPEGImages/`. The mask of NAME is one of:

    * `NAME.png` beside the video, `masks/NAME.png` or `NAME/mask.png`: belongs to the first frame;
    * `masks/NAME/FRAME.png` or `Annotations/NAME/FRAME.png`, or FRAME.png beside FRAME.jpg: belongs to that frame
      (frames of a video file are numbered from 00000).

    The split `train` holds all videos, unless there are lists: `train.txt`, `val.txt`, … with a name per line.
    """

    layout = "folder"
    expected = (
        "videos as NAME/*.jpg or NAME.mp4, each with a mask: NAME.png, masks/NAME.png or NAME/mask.png for its first "
        "frame, or masks/NAME/FRAME.png for another"
    )

    @classmethod
    def places(cls, root: Path) -> Iterable[Path]:
        """Where such a dataset may begin: it has no marks of its own, so that anything below would match."""
        return (root,)

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        return bool(cls(folder, cls.bare("folder")).places_of_videos)

    @functools.cached_property
    def places_of_videos(self) -> dict[str, Path]:
        """Frame folders and video files by name, labelled or not."""
        bases = [self.root / name for name in ("videos", "frames", "JPEGImages")]
        base = next((base for base in bases if base.is_dir()), self.root)
        folders = [folder for folder in folders_in(base) if folder.name not in ("masks", "Annotations")]
        found = {folder.name: folder for folder in folders if has_images(folder)}
        for path in files_in(base, VIDEO_SUFFIXES):
            if path.stem in found:
                raise DataError(f"{path}: there is another video of that name, {found[path.stem]}", "rename one")
            found[path.stem] = path
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return tuple(path.stem for path in sorted(self.root.glob("*.txt"))) or ("train",)

    def _listed_in(self, split: str) -> Path:
        path = self.root / f"{split}.txt"
        return path if path.is_file() else self.root

    def _list(self, split: str) -> list[str]:
        path = self.root / f"{split}.txt"
        if not path.is_file():
            return list(self.places_of_videos)
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    def _open(self, split: str, name: str) -> Video:
        if name not in self.places_of_videos:
            raise DataError(f"{self.root}: no video {name!r}, which {split}.txt lists; expected {self.expected}")
        video = self.labelled(name)
        if not video.masks:
            raise DataError(
                f"{self.places_of_videos[name]}: no mask for video {name!r}",
                f"draw it with `ovos-ray label {self.root}`, or add it; expected: {self.expected}",
            )
        return video

    def labelled(self, name: str) -> Video:
        """A video of the folder with the masks there are, which may be none.

        Raises:
            DataError: Its masks cannot be told apart, or belong to no frame.
        """
        path = self.places_of_videos[name]
        firsts = [path.with_name(f"{name}.png"), self.root / "masks" / f"{name}.png", path / "mask.png"]
        first = next((mask for mask in firsts if mask.is_file()), None)
        sides = [folder / name for folder in (self.root / "masks", self.root / "Annotations")]
        masks: list[Path] = next((found for found in (files_in(side, PNG) for side in sides) if found), [])
        if path.is_file():
            unnumbered = [mask for mask in masks if not mask.stem.isdigit()]
            if unnumbered:
                raise DataError(f"{unnumbered[0]}: expected a frame number as its name, such as 00000.png")
            numbered = {int(mask.stem): mask for mask in masks}
            return Video(name, (), path, self._checked(name, first, numbered))
        images = [image for image in files_in(path) if image.name != "mask.png"]
        photos = {image.stem for image in images if image.suffix.lower() in JPEG}
        beside = [image for image in images if image.suffix.lower() == ".png" and image.stem in photos]
        frames = [image for image in images if image not in beside]
        by_frame = match_masks(name, frames, masks or beside)
        return Video(name, tuple(frames), None, self._checked(name, first, by_frame))

    def _checked(self, name: str, first: Path | None, by_frame: dict[int, Path]) -> dict[int, Path]:
        """The masks of a video: those named by frame, else the one of the first frame."""
        if by_frame and first is not None:
            other = next(iter(by_frame.values()))
            raise DataError(f"video {name!r} has masks in two places: {first} and {other}", "keep one of them")
        return by_frame if first is None else {0: first}
