"""BURST: a JSON file of sequences, with run lengths for each track and annotated frame."""

from __future__ import annotations

from typing import Any

from ovos_ray.data.folders.json_videos import JsonVideo, JsonVideos

__all__ = ["Burst"]


class Burst(JsonVideos):
    """BURST: the annotated frames of its sequences, which are named DATASET/SEQUENCE."""

    layout = "burst"
    expected = "annotations/train.json with `sequences`, frames/train/DATASET/SEQUENCE/FRAME.jpg"

    def _parse(self, value: Any, split: str) -> dict[str, JsonVideo]:
        found = {}
        for sequence in value["sequences"]:
            name = f"{sequence['dataset']}/{sequence['seq_name']}"
            frames = [f"{name}/{path}" for path in sequence["annotated_image_paths"]]
            found[name] = video = JsonVideo((int(sequence["height"]), int(sequence["width"])), frames)
            for frame, tracks in enumerate(sequence["segmentations"]):
                for track, drawn in tracks.items():
                    video.add(frame, track, drawn["rle"])
        return found
