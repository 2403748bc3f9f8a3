"""COCO: a JSON file of images and of annotations; the images of a folder are the frames of a video."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from ovos_ray.data.folders.base import natural_key
from ovos_ray.data.folders.json_videos import JsonVideo, JsonVideos

__all__ = ["Coco"]


class Coco(JsonVideos):
    """COCO as CVAT, Label Studio, Roboflow and others export it.

    A folder of images is a video; images without a folder are one, named after the split. An object is the same in two
    frames where its annotations have one `track_id`, their own or among their attributes; without, objects are numbered
    in each image as they come, which one labelled frame a video does not mind.
    """

    layout = "coco"
    expected = "train.json or annotations/instances_train.json with `images` and `annotations`, images/VIDEO/00000.jpg"

    def _parse(self, value: Any, split: str) -> dict[str, JsonVideo]:
        found: dict[str, JsonVideo] = {}
        places: dict[Any, tuple[JsonVideo, int]] = {}
        for image in sorted(value["images"], key=lambda image: natural_key(Path(image["file_name"]))):
            parent = str(PurePosixPath(image["file_name"]).parent)
            name = split if parent == "." else parent
            video = found.setdefault(name, JsonVideo((int(image["height"]), int(image["width"])), []))
            places[image["id"]] = (video, len(video.frames))
            video.frames.append(str(image["file_name"]))
        for annotation in value["annotations"]:
            if annotation.get("iscrowd") == 1 and "track_id" not in annotation:
                continue
            video, frame = places[annotation["image_id"]]
            track = annotation.get("track_id", (annotation.get("attributes") or {}).get("track_id"))
            number = f"in order {len(video.objects.get(frame, {})):03d}"
            video.add(frame, number if track is None else track, annotation["segmentation"])
        return found
