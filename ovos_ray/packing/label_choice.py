"""The label budget at packing time: which frames' labels enter the shards. No others do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from ovos_ray.data.folders.video import Video
from ovos_ray.errors import ConfigError, DataError

__all__ = ["LabelFrame", "Labels", "check_choice", "chosen_frames", "kind_of", "named_videos"]

LabelFrame: TypeAlias = "Literal['first'] | int | Mapping[str, int]"
Labels: TypeAlias = "Literal['first', 'all'] | int | Sequence[int] | Mapping[str, Sequence[int]]"


def check_choice(labels: Labels, label_frame: LabelFrame) -> Labels:
    """Returns the choice in its plainest form: one label spread over a video is its `first`.

    Raises:
        ConfigError: It chooses nothing, or contradicts itself.
    """
    if labels != "first" and label_frame != "first":
        raise ConfigError(
            "label_frame chooses the one label of labels='first'; with other labels it has no meaning",
            "leave it out, or name the frames with labels",
        )
    if isinstance(labels, str | int):
        if labels in ("first", "all") or (type(labels) is int and labels > 0):
            return "first" if labels == 1 else labels
    else:
        frames = labels.values() if isinstance(labels, Mapping) else (labels,)
        if all(list(own) and all(type(frame) is int and frame >= 0 for frame in own) for own in frames):
            return labels
    raise ConfigError(
        f"labels = {labels!r:.80}",
        "give 'first', 'all', how many labels a video, frame indices from 0, or such a list for each video by name",
    )


def kind_of(labels: Labels) -> str:
    """Returns what an index says of the choice: `first`, `all`, a number of labels a video, or `frames`."""
    return str(labels) if isinstance(labels, str | int) else "frames"


def named_videos(labels: Labels, label_frame: LabelFrame) -> set[str]:
    """Returns the videos that a choice names."""
    return {name for choice in (labels, label_frame) if isinstance(choice, Mapping) for name in choice}


def chosen_frames(video: Video, labels: Labels, label_frame: LabelFrame = "first") -> set[int]:
    """Returns the frames of a video whose labels are stored.

    A number of labels is spread evenly over the masks. The first one that shows an object is always among them, and so
    are the single label among two, and these among four. In place of a mask that shows no object, the next one that
    does is taken; a video with fewer masks gives all it has.

    Raises:
        DataError: A frame that is named has no mask, or one that shows no object, or no mask of the video shows one.
    """
    if labels == "all":
        return set(video.masks)
    if isinstance(labels, int):
        return _spread(video, labels)
    if isinstance(labels, str):
        own = label_frame.get(video.name, "first") if isinstance(label_frame, Mapping) else label_frame
        named: Sequence[int] = () if own == "first" else (int(own),)
    else:
        named = labels.get(video.name, ()) if isinstance(labels, Mapping) else labels
    for frame in named:
        if not video.mask(frame).any():
            raise DataError(f"{video.masks[frame]}: the mask chosen as label shows no object")
    return set(named) or {video.first_label}


def _spread(video: Video, count: int) -> set[int]:
    masks = [frame for frame in video.masks if frame >= video.first_label]
    count = min(count, len(masks))
    found: set[int] = set()
    for number in range(count):
        later = (frame for frame in masks[number * len(masks) // count :] if frame not in found)
        found.update(next(([frame] for frame in later if video.mask(frame).any()), []))
    return found
