"""YouTube-VIS and OVIS: a JSON file of videos, and of objects with a mask for each frame."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ovos_ray.data.folders.json_videos import JsonVideo, JsonVideos

__all__ = ["YouTubeVIS"]


class YouTubeVIS(JsonVideos):
    """YouTube-VIS 2019 to 2022, OVIS: run lengths or outlines for each object and frame."""

    layout = "youtube-vis"
    expected = "train.json or train/instances.json with `videos` and `annotations`, train/JPEGImages/VIDEO/00000.jpg"

    def _parse(self, value: Any, split: str) -> dict[str, JsonVideo]:
        found = {}
        for video in value["videos"]:
            size = (int(video["height"]), int(video["width"]))
            found[video["id"]] = JsonVideo(size, [str(name) for name in video["file_names"]])
        for annotation in value["annotations"] or ():
            for frame, drawn in enumerate(annotation["segmentations"]):
                found[annotation["video_id"]].add(frame, annotation["id"], drawn)
        return {str(PurePosixPath(video.frames[0]).parent): video for video in found.values()}
