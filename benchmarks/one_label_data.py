"""The data of `one_label.py`: the synthetic videos, or DAVIS 2016 at 144p, packed with as many labels as asked for.

A copy of a DAVIS 2016 folder at 144p, small enough to carry to a machine without network, is made by

    python benchmarks/one_label_data.py ROOT OUT [--frames 40] [--quality 75]
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.data.masks import decode_image, decode_mask, encode_jpeg, encode_mask
from ovos_ray.packing.label_choice import Labels
from ovos_ray.packing.pack import pack

__all__ = ["davis_folders", "shrink", "synthetic_folders"]

_SIDE = 144
_MARK = "small.txt"


def synthetic_folders(work: Path) -> tuple[Path, Callable[[Labels], Path]]:
    """Returns the dataset, made if it is not there, and what gives its shards with so many labels a video."""
    folder = open_dataset(synthetic.generate(work / "dataset", seed=0), layout="davis2017")
    return folder.root, functools.partial(_packed, folder, work / "shards")


def davis_folders(train: Path, val: Path, work: Path) -> tuple[Path, Callable[[Labels], Path]]:
    """Returns the same of DAVIS 2016: what is scored, and the shards of what is trained on.

    Args:
        train: A folder in the layout of DAVIS 2016; all its sequences are used, whatever its lists say.
        val: The same for what is scored.
        work: Where the copies at 144p and the shards are kept.
    """
    small_train, small_val = shrink(train, work / "davis-train"), shrink(val, work / "davis-val")
    return small_val, functools.partial(_packed, open_dataset(small_train, layout="davis2016"), work / "davis-shards")


def _packed(folder: DatasetFolder, out: Path, labels: Labels) -> Path:
    shards = out / str(labels)
    pack(folder, shards, labels=labels, split="train")
    return shards


def shrink(root: Path, out: Path, *, num_frames: int | None = None, quality: int = 90) -> Path:
    """Copies all sequences of a DAVIS 2016 folder at 144p; both splits of the copy, train and val, list all of them.

    Frames are averaged over areas, masks take the nearest pixel. A folder made this way is returned as it is, and one
    that is complete is not made again.

    Args:
        root: The folder.
        out: Where the copy lies.
        num_frames: Only the first so many frames of every sequence.
        quality: Of the JPEG files.
    """
    if (root / _MARK).exists():
        return root.resolve()
    if (out / _MARK).exists():
        return out.resolve()
    videos = sorted(path for path in (root / "JPEGImages" / "480p").iterdir() if path.is_dir())
    frames = [path for video in videos for path in sorted(video.glob("*.jpg"))[:num_frames]]
    copy = functools.partial(_shrink_frame, root=root, out=out, quality=quality)
    with ThreadPoolExecutor() as pool:
        list(pool.map(copy, frames))
    lists = out / "ImageSets" / "480p"
    lists.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("".join(_lines(frames)), encoding="utf-8")
    (out / _MARK).write_text(f"{len(frames)} frames, shortest side {_SIDE}\n", encoding="utf-8")
    return out.resolve()


def _shrink_frame(path: Path, *, root: Path, out: Path, quality: int) -> None:
    place = Path("480p") / path.parent.name / path.stem
    image = decode_image(path)
    mask = decode_mask(root / "Annotations" / place.with_suffix(".png"))
    zoom = min(1.0, _SIDE / min(mask.shape))
    size = round(mask.shape[1] * zoom), round(mask.shape[0] * zoom)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    for kind, suffix, content in (
        ("JPEGImages", ".jpg", encode_jpeg(image, quality)),
        ("Annotations", ".png", encode_mask(np.where(mask > 0, np.uint8(255), np.uint8(0)))),
    ):
        target = (out / kind / place).with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _lines(frames: list[Path]) -> Iterator[str]:
    for path in frames:
        place = f"480p/{path.parent.name}/{path.stem}"
        yield f"/JPEGImages/{place}.jpg /Annotations/{place}.png\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, help="only the first so many of every sequence")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG files")
    arguments = parser.parse_args()
    print(shrink(arguments.root, arguments.out, num_frames=arguments.frames, quality=arguments.quality))
