"""Which way a video is walked from its masks: forward, backward, or both ways.

| direction | what happens |
|---|---|
| forward | from the first frame on; frames before the first mask are background |
| backward | from the last frame to the first; frames after the last mask are background |
| both | from the earliest mask back to the first frame, then, with a fresh memory, from the earliest mask on |

Other masks take part on the way: they correct known objects, and bring new ones, from their frame on (from their frame
back, walking backward). Memory is that of one walk; frames that a video file gives in the wrong order are kept on disk.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from ovos_ray.data.folders.video import Video
from ovos_ray.errors import DataError
from ovos_ray.evaluate.infer.background import ReadAhead
from ovos_ray.evaluate.infer.inference import Image, Mask, Prediction, Predictor

__all__ = ["Direction", "FrameStack", "predict_both_ways", "walk"]

Direction: TypeAlias = Literal["forward", "backward", "both"]

Step: TypeAlias = "tuple[int, Image, Prediction]"


class FrameStack:
    """Pictures put down one after another and taken up again in any order, by any thread; on disk.

    Its file has no name, so that nothing is left of it whatever happens to the process.

    Args:
        folder: Where the file lies; as much as the pictures take must be free there.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._ends = [0]

    def __enter__(self) -> FrameStack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def clear(self) -> None:
        """Throws all pictures away."""
        self._file.truncate(0)
        self._ends = [0]

    def close(self) -> None:
        """Gives the disk back."""
        self._file.close()

    def put(self, encoded: bytes) -> None:
        """Puts an encoded picture on top."""
        view, start = memoryview(encoded), self._ends[-1]
        while view:
            written = os.pwrite(self._file.fileno(), view, start)
            view, start = view[written:], start + written
        self._ends.append(start)

    def take(self, index: int) -> bytes:
        """Returns an encoded picture; it stays."""
        start, end = self._ends[index : index + 2]
        return os.pread(self._file.fileno(), end - start, start)

    def append(self, picture: Image | Mask) -> None:
        """Puts a picture on top, without loss: (H, W, 3) or (H, W) uint8."""
        self.put(cv2.imencode(".png", picture, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())

    def __getitem__(self, index: int) -> Image:
        return np.asarray(cv2.imdecode(np.frombuffer(self.take(index), np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def walk(
    predictor: Predictor, video: Video, masks: Mapping[int, Mask], direction: Direction, scratch: Path
) -> Iterator[Step]:
    """Yields every frame of a video once, as (index, frame, prediction), in the order in which they are predicted.

    Args:
        predictor: What predicts.
        video: The video; a file is decoded once.
        masks: By frame index, (H, W) uint8 object ids.
        direction: Which way.
        scratch: A folder for frames of a video file that are predicted in reverse.

    Raises:
        DataError: The video cannot be read, has frames of several sizes, or ends before the last mask.
    """
    turn = {"forward": 0, "backward": max(masks), "both": min(masks)}[direction]
    if direction == "both" and turn == 0:
        direction = "forward"
    with FrameStack(scratch) as stack:
        images = None if video.file is None else video.images()
        if direction != "forward":
            given = {turn - t: mask for t, mask in masks.items() if t <= turn}
            reverse = _frames(video, range(turn, -1, -1), None if images is None else _reversed(images, turn, stack))
            for step in _run(predictor, reverse, given):
                # Walking both ways, the frame of the earliest mask is predicted with those that follow it.
                if direction == "backward" or step[0] != turn:
                    yield step
        if direction == "backward":
            for t, image in _frames(video, _on(video, turn + 1), images):
                yield t, image, Prediction(np.zeros(image.shape[:2], np.uint8))
            return
        if images is not None and turn:
            images = itertools.chain([stack[turn]], images)
        given = {t - turn: mask for t, mask in masks.items()}
        t = turn - 1
        for t, image, prediction in _run(predictor, _frames(video, _on(video, turn), images), given):
            yield t, image, prediction
        if t < max(masks):
            raise _ends_before(max(masks), t + 1)


def predict_both_ways(predictor: Predictor, frames: Iterable[Image], masks: Mapping[int, Mask]) -> Iterator[Mask]:
    """Yields the masks of frames of any source in their order, predicted as `walk` does both ways.

    Args:
        predictor: What predicts.
        frames: (H, W, 3) uint8 RGB; those up to the earliest mask are kept on disk meanwhile.
        masks: By frame index, (H, W) uint8 object ids.

    Raises:
        DataError: There are fewer frames than the last mask needs.
    """
    first, images = min(masks), iter(frames)
    scratch = Path(tempfile.gettempdir())
    with FrameStack(scratch) as stack, FrameStack(scratch) as before:
        if first:
            for prediction in predictor(_reversed(images, first, stack), {0: masks[first]}):
                before.append(prediction.mask)
            images = itertools.chain([stack[first]], images)
        for place in range(first, 0, -1):
            yield before[place]
    count = first
    for prediction in predictor(images, {t - first: mask for t, mask in masks.items()}):
        count += 1
        yield prediction.mask
    if count <= max(masks):
        raise _ends_before(max(masks), count)


def _on(video: Video, start: int) -> Iterable[int]:
    return range(start, len(video.frames)) if video.file is None else itertools.count(start)


def _reversed(images: Iterator[Image], turn: int, stack: FrameStack) -> Iterator[Image]:
    """Takes frames up to one from a file, and yields them in reverse."""
    for image in itertools.islice(images, turn + 1):
        stack.append(image)
    if len(stack) <= turn:
        raise _ends_before(turn, len(stack))
    for t in range(turn, -1, -1):
        yield stack[t]


def _frames(video: Video, order: Iterable[int], images: Iterator[Image] | None) -> Iterator[tuple[int, Image]]:
    """Yields frames with their indices, and makes sure of their size.

    Args:
        video: The video.
        order: The indices.
        images: The frames in that order, of a video file; None: they are read from the folder.
    """
    first: tuple[int, tuple[int, ...]] | None = None
    for t, image in zip(order, video.images(order) if images is None else images, strict=False):
        size = image.shape[:2]
        first = first or (t, size)
        if size != first[1]:
            name = f"{video.file}, frame {t}" if video.file is not None else str(video.frames[t])
            other = "the first frame" if first[0] == 0 else f"frame {first[0]}"
            raise DataError(
                f"{name}: {size[1]} x {size[0]} pixels, {other} has {first[1][1]} x {first[1][0]}",
                "all frames of a video must have one size: scale this one, or split the video where it changes",
            )
        yield t, image


def _run(predictor: Predictor, frames: Iterable[tuple[int, Image]], given: Mapping[int, Mask]) -> Iterator[Step]:
    """Predicts frames in the order they come in; `given` counts in this order, too."""
    waiting: deque[tuple[int, Image]] = deque()

    def images(ahead: Iterator[tuple[int, Image]]) -> Iterator[Image]:
        for frame in ahead:
            waiting.append(frame)
            yield frame[1]

    with ReadAhead(frames) as ahead:
        for prediction in predictor(images(ahead), given):
            yield *waiting.popleft(), prediction


def _ends_before(wanted: int, count: int) -> DataError:
    return DataError(
        f"there is a mask of frame {wanted}, but the video has {count} frames", "frames are numbered from 0"
    )
