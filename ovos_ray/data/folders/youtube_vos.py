"""YouTube-VOS 2018 and 2019 folders: SPLIT/{JPEGImages,Annotations}/VIDEO, meta.json, and all frames beside them."""

from __future__ import annotations

import functools
from pathlib import Path

from ovos_ray.data.folders.base import PNG, DatasetFolder, files_in, folders_in, match_masks
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError
from ovos_ray.io import read_json

__all__ = ["YouTubeVOS"]


class YouTubeVOS(DatasetFolder):
    """YouTube-VOS 2018 and 2019: SPLIT/{JPEGImages,Annotations}/VIDEO, meta.json, and all frames of the validation.

    Objects may appear later; prediction is given the mask in which each is new, and saves the frames of meta.json.
    The split `train_all_frames` is the training split with every frame of its videos, every fifth of which has a label.
    """

    layout = "youtube-vos"
    stored_interval = 5
    kept_by_server = True
    erroneous = ("01e64dd36a", "04259896e2", "1336440745", "5bc77844da", "5ee23ca60e", "738e5a0a14", "f8af30d4b6")
    expected = "train/{JPEGImages,Annotations}/VIDEO/00000.{jpg,png}, valid/{JPEGImages,Annotations,meta.json}"
    _folders = ("train", "train_480p", "valid", "test")

    @classmethod
    def begins_at(cls, folder: Path) -> bool:
        """Whether a dataset of this layout begins in this folder."""
        return any((folder / split / "Annotations").is_dir() for split in cls._folders)

    @functools.cached_property
    def _splits(self) -> dict[str, Path]:
        """The folders of annotations by split."""
        found: dict[str, Path] = {}
        for name in self._folders:
            if (self.root / name / "Annotations").is_dir():
                found.setdefault(name.removesuffix("_480p"), self.root / name)
        if "train" in found and self._all_frames("train"):
            found["train_all_frames"] = found["train"]
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return tuple(self._splits)

    def _all_frames(self, split: str) -> Path | None:
        """The folder of every frame of a split, where it is there."""
        name = f"{split.removesuffix('_all_frames')}_all_frames"
        places = (base / name / "JPEGImages" for base in (self.root / "all_frames", self.root))
        return next((place for place in places if place.is_dir()), None)

    def _frames(self, split: str) -> Path:
        """The folder of frames: every frame of the video rather than every fifth, but for the split `train`."""
        fifth = self._splits[split] / "JPEGImages"
        return fifth if split == "train" else self._all_frames(split) or fifth

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
        return (
            self._splits[split] / "meta.json"
            if not split.startswith("train") and self._meta(split)
            else self._frames(split)
        )

    def _list(self, split: str) -> list[str]:
        listed = {} if split.startswith("train") else self._meta(split)
        return list(listed) or [folder.name for folder in folders_in(self._frames(split))]

    def _open(self, split: str, name: str) -> Video:
        frames = files_in(self._frames(split) / name)
        if not frames:
            raise DataError(f"{self._frames(split) / name}: missing frames", "complete the download")
        masks = match_masks(name, frames, files_in(self._splits[split] / "Annotations" / name, PNG))
        saved = None if split.startswith("train") else self._meta(split).get(name)
        return Video(name, tuple(frames), None, masks, given="appearances", saved_names=saved)
