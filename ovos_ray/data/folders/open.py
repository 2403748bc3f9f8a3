"""Dataset folders as people have them on disk: DAVIS, YouTube-VOS, static images, or a plain folder of videos.

`open_dataset` recognises the layout and finds the dataset's own folder at or below the given root; a `DatasetFolder`
lists splits and videos, and checks a video when it is opened.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ovos_ray.data.folders.base import DatasetFolder, files_in, find_below, folders_in, has_images, match_masks
from ovos_ray.data.folders.description import LAYOUTS, DatasetDescription, Layout, describe
from ovos_ray.data.folders.video import VIDEO_SUFFIXES, Video
from ovos_ray.errors import DataError
from ovos_ray.io import read_json

__all__ = [
    "DatasetFolder",
    "Davis2016",
    "Davis2017",
    "PlainFolder",
    "StaticImages",
    "Video",
    "YouTubeVOS",
    "open_dataset",
]

_PNG = frozenset({".png"})
_JPEG = frozenset({".jpg", ".jpeg"})
_DAVIS_DOWNLOADS = frozenset({"trainval", "test-dev", "test-challenge"})


class Davis2017(DatasetFolder):
    """DAVIS 2017: JPEGImages/480p, Annotations/480p, ImageSets/2017/SPLIT.txt; trainval and test-dev may lie apart."""

    expected = "JPEGImages/480p/VIDEO/00000.jpg, Annotations/480p/VIDEO/00000.png, ImageSets/2017/train.txt"
    lists: ClassVar[tuple[str, ...]] = ("2017", "")
    single_object: ClassVar[bool] = False

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        sets = folder / "ImageSets"
        return (folder / "JPEGImages").is_dir() and any(any((sets / name).glob("*.txt")) for name in cls.lists)

    @functools.cached_property
    def _sets(self) -> dict[str, Path]:
        """List files by split. `test-dev` beside `trainval` adds the split that this lacks."""
        found: dict[str, Path] = {}
        apart = _DAVIS_DOWNLOADS - {self.root.name} if self.root.name in _DAVIS_DOWNLOADS else ()
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
        masks = match_masks(name, frames, files_in(base / "Annotations" / size / name, _PNG))
        return Video(name, tuple(frames), None, masks, "one object" if self.single_object else "ids")


class Davis2016(Davis2017):
    """DAVIS 2016: as 2017, with the lists in ImageSets/480p; masks of 0 and 255, all objects are one."""

    expected = "JPEGImages/480p/VIDEO/00000.jpg, Annotations/480p/VIDEO/00000.png, ImageSets/480p/train.txt"
    lists = ("480p", "1080p", "2016", "")
    single_object = True


class YouTubeVOS(DatasetFolder):
    """YouTube-VOS 2018 and 2019: SPLIT/{JPEGImages,Annotations}/VIDEO, meta.json, and all frames of the validation.

    Objects may appear later; prediction is given the mask in which each is new, and saves the frames of meta.json.
    """

    expected = "train/{JPEGImages,Annotations}/VIDEO/00000.{jpg,png}, valid/{JPEGImages,Annotations,meta.json}"
    _folders = ("train", "train_480p", "valid", "test")

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        return any((folder / split / "Annotations").is_dir() for split in cls._folders)

    @functools.cached_property
    def _splits(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for name in self._folders:
            if (self.root / name / "Annotations").is_dir():
                found.setdefault(name.removesuffix("_480p"), self.root / name)
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return tuple(self._splits)

    def _frames(self, split: str) -> Path:
        """The folder of frames; every frame of the video rather than every fifth, where both are there."""
        places = [
            self.root / "all_frames" / f"{split}_all_frames" / "JPEGImages",
            self.root / f"{split}_all_frames" / "JPEGImages",
        ]
        places = [] if split == "train" else places
        return next((place for place in places if place.is_dir()), self._splits[split] / "JPEGImages")

    def frame_interval(self, split: str) -> int:
        """Video frames between two frames of a split; 1 where all frames of it are there."""
        split = self.resolve(split)
        return self.description.frame_interval if self._frames(split).parent == self._splits[split] else 1

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a few folders live as long as the program
    def _meta(self, split: str) -> dict[str, frozenset[str]]:
        """Names of the frames to save, by video; empty without meta.json."""
        path = self._splits[split] / "meta.json"
        if not path.is_file():
            return {}
        try:
            return {
                name: frozenset(frame for item in video["objects"].values() for frame in item["frames"])
                for name, video in read_json(path)["videos"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a YouTube-VOS meta.json ({error!r})", "download the dataset again") from error

    def _listed_in(self, split: str) -> Path:
        return self._splits[split] / "meta.json" if split != "train" and self._meta(split) else self._frames(split)

    def _list(self, split: str) -> list[str]:
        listed = {} if split == "train" else self._meta(split)
        return list(listed) or [folder.name for folder in folders_in(self._frames(split))]

    def _open(self, split: str, name: str) -> Video:
        frames = files_in(self._frames(split) / name)
        if not frames:
            raise DataError(f"{self._frames(split) / name}: missing frames", "complete the download")
        masks = match_masks(name, frames, files_in(self._splits[split] / "Annotations" / name, _PNG))
        saved = None if split == "train" else self._meta(split).get(name)
        return Video(name, tuple(frames), None, masks, given="appearances", saved_names=saved)


class StaticImages(DatasetFolder):
    """Static images: X.jpg with X.png beside it, flat or in folders (static/DUTS-TR, static/fss/CLASS).

    Every image is a video of one frame, named by its path without extension. The splits are `train` (all of them)
    and the folders.
    """

    expected = "X.jpg and its mask X.png side by side, in this folder, in SET/ or in SET/CLASS/"

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        below = folders_in(folder)[:3]
        for level in (folder, *below, *(child for parent in below for child in folders_in(parent)[:3])):
            images = files_in(level, _JPEG)
            if images and images[0].with_suffix(".png").is_file():
                return True
        return False

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return ("train", *(folder.name for folder in folders_in(self.root) if folder.name != "train"))

    def _list(self, split: str) -> list[str]:
        base = self.root if split == "train" else self.root / split
        found = (path for path in base.rglob("*") if path.suffix.lower() in _JPEG)
        images = sorted(path for path in found if not any(p[0] == "." for p in path.relative_to(base).parts))
        alone = [path for path in images if not path.with_suffix(".png").is_file()]
        if alone:
            raise DataError(f"{alone[0]}: no mask {alone[0].stem}.png beside it ({len(alone)} such images)")
        return [path.relative_to(self.root).with_suffix("").as_posix() for path in images]

    def _open(self, split: str, name: str) -> Video:
        places = [self.root / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".JPG", ".JPEG")]
        image = next(place for place in places if place.is_file())
        return Video(name, (image,), None, {0: image.with_suffix(".png")}, "saliency")


class PlainFolder(DatasetFolder):
    """A folder of videos, each a folder of frames or a video file, with at least one mask each.

    Videos lie in the folder itself or in its `videos/`, `frames/` or `JPEGImages/`. The mask of NAME is one of:

    * `NAME.png` beside the video, `masks/NAME.png` or `NAME/mask.png`: belongs to the first frame;
    * `masks/NAME/FRAME.png` or `Annotations/NAME/FRAME.png`, or FRAME.png beside FRAME.jpg: belongs to that frame
      (frames of a video file are numbered from 00000).

    The split `train` holds all videos, unless there are lists: `train.txt`, `val.txt`, … with a name per line.
    """

    expected = (
        "videos as NAME/*.jpg or NAME.mp4, each with a mask: NAME.png, masks/NAME.png or NAME/mask.png for its first "
        "frame, or masks/NAME/FRAME.png for another"
    )

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        return bool(cls(folder, DatasetDescription(name="folder", layout="folder"))._videos)

    @functools.cached_property
    def _videos(self) -> dict[str, Path]:
        """Frame folders and video files by name."""
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
            return list(self._videos)
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    def _open(self, split: str, name: str) -> Video:
        if name not in self._videos:
            raise DataError(f"{self.root}: no video {name!r}, which {split}.txt lists; expected {self.expected}")
        path = self._videos[name]
        firsts = [path.with_name(f"{name}.png"), self.root / "masks" / f"{name}.png", path / "mask.png"]
        first = next((mask for mask in firsts if mask.is_file()), None)
        sides = [folder / name for folder in (self.root / "masks", self.root / "Annotations")]
        masks: list[Path] = next((found for found in (files_in(side, _PNG) for side in sides) if found), [])
        if path.is_file():
            unnumbered = [mask for mask in masks if not mask.stem.isdigit()]
            if unnumbered:
                raise DataError(f"{unnumbered[0]}: expected a frame number as its name, such as 00000.png")
            numbered = {int(mask.stem): mask for mask in masks}
            return Video(name, (), path, self._checked(name, path, first, numbered))
        images = [image for image in files_in(path) if image.name != "mask.png"]
        photos = {image.stem for image in images if image.suffix.lower() in _JPEG}
        beside = [image for image in images if image.suffix.lower() == ".png" and image.stem in photos]
        frames = [image for image in images if image not in beside]
        by_frame = match_masks(name, frames, masks or beside)
        return Video(name, tuple(frames), None, self._checked(name, path, first, by_frame))

    def _checked(self, name: str, path: Path, first: Path | None, by_frame: dict[int, Path]) -> dict[int, Path]:
        """The masks of a video: those named by frame, else the one of the first frame."""
        if by_frame and first is not None:
            other = next(iter(by_frame.values()))
            raise DataError(f"video {name!r} has masks in two places: {first} and {other}", "keep one of them")
        if not by_frame and first is None:
            raise DataError(f"{path}: no mask for video {name!r}", f"expected: {self.expected}")
        return by_frame if first is None else {0: first}


_FOLDERS: dict[Layout, type[DatasetFolder]] = {
    "davis2017": Davis2017,
    "davis2016": Davis2016,
    "youtube-vos": YouTubeVOS,
    "static": StaticImages,
    "folder": PlainFolder,
}


def open_dataset(root: str | Path, dataset: str = "auto", layout: str | None = None) -> DatasetFolder:
    """Opens a dataset folder.

    Args:
        root: The dataset's folder, one above it, or one of its parts.
        dataset: Name or file of a description, a layout, or `auto` to recognise the layout. With `layout`, any name.
        layout: Overrides the description's layout; `auto` and None leave it.

    Raises:
        DataError: The folder does not exist, or holds no dataset of that layout.
    """
    root = Path(os.path.abspath(Path(root).expanduser()))
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", "give the folder that holds the dataset")
    known = None if dataset == "auto" else _described(dataset, layout)
    if layout not in (None, "auto", *LAYOUTS):
        raise DataError(f"no layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    wanted = layout if layout not in (None, "auto") else known.layout if known is not None else None
    candidates = [name for name in _FOLDERS if wanted in (None, name)]
    for name in candidates:
        # A plain folder or image folder has no marks of its own, so anything further below would match too.
        places = [root] if name == "folder" else [root, root / "static"] if name == "static" else find_below(root)
        for folder in places:
            if _FOLDERS[name].begins_at(folder):
                return _FOLDERS[name](
                    folder, replace(known or DatasetDescription(name=folder.name, layout=name), layout=name)
                )
    expected = "\n".join(f"  {name}: {_FOLDERS[name].expected}" for name in candidates)
    raise DataError(f"{root}: no dataset of layout {' or '.join(candidates)} here; expected\n{expected}")


def _described(dataset: str, layout: str | None) -> DatasetDescription:
    """The dataset's description; a bare one under that name where there is none, but a layout is given."""
    try:
        return describe(dataset)
    except DataError:
        found = next((name for name in LAYOUTS if name == layout), None)
        if found is None or dataset.endswith(".py"):
            raise
        return DatasetDescription(name=dataset, layout=found)
