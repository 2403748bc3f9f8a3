"""One video for `predict --frames`: its frames, and the masks it is given, by `--mask` and `--box`."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovos_ray.cli.console import console
from ovos_ray.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ovos_ray.data.folders.video import Video
    from ovos_ray.evaluate.infer.video_jobs import VideoJob
    from ovos_ray.label.prompts import Prompter

__all__ = ["keep_masks_of_boxes", "one_video"]

_KIND = "masks of boxes"


def one_video(
    frames: Path | None,
    masks: Sequence[str],
    boxes: Sequence[str],
    prompter: Callable[[], Prompter],
    scratch: Path,
) -> Video:
    """Returns a video with the masks of some of its frames.

    Args:
        frames: A folder of frames, or a video file.
        masks: `MASK.png` of the first frame, or `FRAME=MASK.png`.
        boxes: `OBJECT:x0,y0,x1,y1` in the first frame, or `FRAME=OBJECT:x0,y0,x1,y1`.
        prompter: Loads what makes masks of boxes; called where there are some.
        scratch: Where the masks of boxes are written.

    Raises:
        ConfigError: It has no mask, a frame has both, or what is given cannot be read.
        DataError: There is no such video, frame or mask, or a box shows no object.
    """
    from ovos_ray.data.folders.base import files_in
    from ovos_ray.data.folders.video import Video

    if frames is None or not (masks or boxes):
        raise ConfigError(
            "--frames needs --mask or --box: where the objects are in a frame",
            "--box 1:10,20,200,180 draws object 1 around what is in the box (x0,y0,x1,y1); or paint a mask as an "
            "indexed PNG, 0 for background and 1, 2, … for the objects (`ovos-ray label` helps): --mask MASK.png for "
            "the first frame, --mask 42=MASK.png for another",
        )
    frames = frames.absolute()  # whose name is that of the video, also where frames is `.`
    if not frames.is_dir():
        if not frames.is_file():
            raise DataError(f"{frames}: no such folder or file", "give a folder of frames, or a video file")
        video, names = Video(frames.stem, (), frames, {}, given="all"), None
    else:
        images = tuple(files_in(frames))
        if not images:
            raise DataError(f"{frames} holds no images", "give a folder of frames, or a video file")
        video, names = Video(frames.name, images, None, {}, given="all"), [path.stem for path in images]
    found = _masks_by_frame(masks, names)
    objects = _boxes_by_frame(boxes, names)
    if both := sorted(found.keys() & objects):
        raise ConfigError(f"frame {both[0]} has both --mask and --box", "give one of them, or put both in one mask")
    if objects:
        draws = prompter()
        found |= {index: _draw(video, index, ones, draws, scratch) for index, ones in objects.items()}
    return replace(video, masks=dict(sorted(found.items())))


def keep_masks_of_boxes(job: VideoJob, scratch: Path) -> VideoJob:
    """Writes the masks that came from boxes beside the predictions, and returns the job that starts from these.

    Raises:
        DataError: There is a file of this name that was not written here.
    """
    from ovos_ray.io import atomic_path
    from ovos_ray.paths import MARKER, below, note_of, write_marker

    masks = dict(job.video.masks)
    for index, path in masks.items():
        if path.parent != scratch:
            continue
        target, content = below(job.out, f"{job.video.name}-{path.name}"), path.read_bytes()
        marker = below(job.out, MARKER, _KIND, f"{target.name}.txt")
        if target.exists() and note_of(marker, _KIND) != hashlib.sha256(target.read_bytes()).hexdigest():
            raise DataError(f"{target}: exists, and is no mask of a box written here", "move it away, or change --out")
        marker.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
        write_marker(marker, _KIND, hashlib.sha256(content).hexdigest())
        console.print(f"the mask that the box became: {target}")
        masks[index] = target
    return replace(job, video=replace(job.video, masks=masks))


def _masks_by_frame(given: Iterable[str], names: list[str] | None) -> dict[int, Path]:
    """Turns `MASK.png` and `FRAME=MASK.png` into masks by frame index; `names` are those of a folder's frames."""
    found: dict[int, Path] = {}
    for text in given:
        frame, path = re.fullmatch(r"(?:([^/=]+)=)?(.*)", str(text), re.DOTALL).groups()  # type: ignore[union-attr]
        index = _frame_index(f"--mask {text}", frame, names)
        if index in found:
            raise ConfigError(f"--mask {text}: frame {index} has a mask already, {found[index]}", "give one a frame")
        if not Path(path).is_file():
            raise DataError(f"{path}: no such mask", "give the mask of a frame, an indexed PNG")
        found[index] = Path(path).absolute()
    return found


def _boxes_by_frame(given: Iterable[str], names: list[str] | None) -> dict[int, dict[int, tuple[int, ...]]]:
    """Turns `1:x0,y0,x1,y1` and `FRAME=1:x0,y0,x1,y1` into boxes by frame index and object id."""
    found: dict[int, dict[int, tuple[int, ...]]] = {}
    for text in given:
        match = re.fullmatch(r"(?:([^/=]+)=)?(\d{1,3}):(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9})", text.strip())
        if match is None:
            raise ConfigError(
                f"--box {text}: not OBJECT:x0,y0,x1,y1",
                "such as --box 1:10,20,200,180 for object 1 in the first frame, --box 42=1:10,20,200,180 in frame 42; "
                "whole pixels, the left upper corner and then the right lower one",
            )
        frame, (object_id, *box) = match[1], [int(value) for value in match.groups()[1:]]
        if not 1 <= object_id <= 254:
            raise ConfigError(f"--box {text}: object {object_id}", "objects are 1 to 254; 0 is the background")
        objects = found.setdefault(_frame_index(f"--box {text}", frame, names), {})
        if object_id in objects:
            raise ConfigError(f"--box {text}: object {object_id} has a box in this frame already", "give one an object")
        objects[object_id] = tuple(box)
    return found


def _frame_index(given: str, frame: str | None, names: list[str] | None) -> int:
    if frame is None:
        return 0
    if names and frame in names:
        return names.index(frame)
    if frame.isdecimal() and (names is None or int(frame) < len(names)):
        return int(frame)
    there_are = f"there are {len(names)}, {names[0]} … {names[-1]}" if names else "give a number"
    raise DataError(f"{given}: no frame {frame!r}", f"{there_are}; frames are numbered from 0")


def _draw(video: Video, index: int, objects: dict[int, tuple[int, ...]], prompter: Prompter, scratch: Path) -> Path:
    """Writes the mask of a frame that boxes give; the later of two objects lies over the earlier one."""
    import numpy as np

    from ovos_ray.data.masks import encode_mask
    from ovos_ray.label.prompts import mask_from_box

    images = video.images([index]) if video.file is None else itertools.islice(video.images(), index, None)
    image = next(images, None)
    if image is None:
        raise DataError(
            f"{video.file}: it has no frame {index}", f"it ends before; frames of {video.name} count from 0"
        )
    mask = np.zeros(image.shape[:2], np.uint8)
    for object_id, box in objects.items():
        mask[mask_from_box(image, box, prompter=prompter)] = object_id
    path = scratch / f"{index:05d}-box.png"
    path.write_bytes(encode_mask(mask))
    return path
