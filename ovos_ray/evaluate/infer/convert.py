"""Folders of masks, as `predict` writes them, become the JSON files of COCO, YouTube-VIS and BURST."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovos_ray.data.folders.base import PNG, files_in, folders_in
from ovos_ray.data.masks import ObjectBox, boxes, decode_mask
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.io import atomic_path

__all__ = ["FORMATS", "convert"]


def convert(masks: Path, out: Path, to: str) -> int:
    """Writes masks as one JSON file, whose run lengths give back every pixel; returns how many masks there were.

    Args:
        masks: VIDEO/FRAME.png of object ids; a video may lie deeper.
        out: The file.
        to: One of `FORMATS`.

    Raises:
        ConfigError: There is no such format, or a file of that name: it may hold labels of the user's.
        DataError: There are no masks, or a damaged one.
    """
    if to not in FORMATS:
        raise ConfigError(f"no format {to!r}", f"there are {', '.join(FORMATS)}")
    if os.path.lexists(out):
        raise ConfigError(f"{out}: exists, and is not replaced", "give another name, or move it away")
    videos = dict(_videos(masks))
    if not videos:
        raise DataError(f"{masks}: no masks VIDEO/FRAME.png here", "give a folder that `ovos-ray predict` has written")
    value = FORMATS[to](videos)
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
    return sum(len(files) for files in videos.values())


def _videos(folder: Path, prefix: str = "") -> Iterator[tuple[str, list[Path]]]:
    for below in folders_in(folder):
        name = f"{prefix}{below.name}"
        if files := files_in(below, PNG):
            yield name, files
        yield from _videos(below, f"{name}/")


def _objects(path: Path, size: tuple[int, int]) -> Iterator[tuple[ObjectBox, dict[str, Any]]]:
    """Yields every object of a mask with its run lengths."""
    mask = decode_mask(path)
    if mask.shape != size:
        raise DataError(f"{path}: mask of {mask.shape}, others of {size} (height, width)", "give masks of one size")
    for box in boxes(mask):
        yield box, {"size": list(mask.shape), "counts": run_lengths(mask == box.object_id)}


def _size(files: list[Path]) -> tuple[int, int]:
    height, width = decode_mask(files[0]).shape
    return height, width


def run_lengths(mask: npt.NDArray[np.bool_]) -> str:
    """Returns COCO's compressed run lengths of a mask: down the columns, background first."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    counts = [0, *counts] if flat[0] else counts
    text = bytearray()
    for place, count in enumerate(counts):
        number = count - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits, number = number & 0x1F, number >> 5
            more = number != (-1 if bits & 0x10 else 0)
            text.append(48 + (bits | 0x20 if more else bits))
    return text.decode("ascii")


def _numbers(box: ObjectBox) -> dict[str, Any]:
    return {"bbox": [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0], "area": box.area}


def _frames(name: str, files: list[Path]) -> list[str]:
    return [f"{name}/{path.stem}.jpg" for path in files]


_CATEGORIES = [{"id": 1, "name": "object"}]


def _coco(videos: dict[str, list[Path]]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, files in videos.items():
        height, width = size = _size(files)
        for path, frame in zip(files, _frames(name, files), strict=True):
            images.append({"id": len(images) + 1, "file_name": frame, "height": height, "width": width})
            for box, drawn in _objects(path, size):
                own = {"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "iscrowd": 0}
                annotations.append({**own, "track_id": box.object_id, "segmentation": drawn, **_numbers(box)})
    return {"images": images, "annotations": annotations, "categories": _CATEGORIES}


def _youtube_vis(videos: dict[str, list[Path]]) -> dict[str, Any]:
    described: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, files) in enumerate(videos.items(), 1):
        height, width = size = _size(files)
        frames = _frames(name, files)
        described.append({"id": number, "file_names": frames, "height": height, "width": width, "length": len(frames)})
        tracks: dict[int, dict[str, list[Any]]] = {}
        for t, path in enumerate(files):
            for box, drawn in _objects(path, size):
                empty = {key: [None] * len(files) for key in ("segmentations", "bboxes", "areas")}
                track = tracks.setdefault(box.object_id, empty)
                track["segmentations"][t], track["bboxes"][t], track["areas"][t] = drawn, *_numbers(box).values()
        for object_id, track in sorted(tracks.items()):
            own = {"id": len(annotations) + 1, "video_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**own, "object_id": object_id, "height": height, "width": width, **track})
    return {"videos": described, "annotations": annotations, "categories": _CATEGORIES}


def _burst(videos: dict[str, list[Path]]) -> dict[str, Any]:
    sequences = []
    for number, (name, files) in enumerate(videos.items(), 1):
        height, width = size = _size(files)
        dataset, _, sequence = name.rpartition("/")
        names = [f"{path.stem}.jpg" for path in files]
        segmentations = [
            {str(box.object_id): {"rle": drawn["counts"], "is_gt": False} for box, drawn in _objects(path, size)}
            for path in files
        ]
        tracks = sorted({track for frame in segmentations for track in frame}, key=int)
        sequences.append(
            {
                "id": number,
                "dataset": dataset or "videos",
                "seq_name": sequence,
                "height": height,
                "width": width,
                "annotated_image_paths": names,
                "all_image_paths": names,
                "segmentations": segmentations,
                "track_category_ids": dict.fromkeys(tracks, 1),
            }
        )
    return {"sequences": sequences, "categories": _CATEGORIES}


FORMATS: dict[str, Callable[[dict[str, list[Path]]], dict[str, Any]]] = {
    "coco": _coco,
    "youtube-vis": _youtube_vis,
    "burst": _burst,
}
"""What masks can become."""
