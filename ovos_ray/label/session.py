"""What the page can ask for: the videos, their frames and masks, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ovos_ray.arrays import UInt8Array
from ovos_ray.data.masks import DAVIS_PALETTE
from ovos_ray.errors import ConfigError, DataError, OvosError
from ovos_ray.label.prompts import Box, Click, Prompter, grabcut, mask_from_box
from ovos_ray.label.propagation import Propagation
from ovos_ray.label.videos import Labels, OpenVideo, find_videos

if TYPE_CHECKING:
    from ovos_ray.networks.base import VOSNetwork

__all__ = ["Session"]


class Session:
    """Videos being labelled; one is open at a time. Not thread-safe: callers take turns.

    Args:
        path: A folder of videos, or one video.
        network: Shows at once what it makes of a label, where it is to run; or None.
        shortest_side: The size at which it does.
        prompter: Makes a mask of a box and clicks.

    Raises:
        DataError: There is no video.
    """

    def __init__(
        self,
        path: Path,
        network: VOSNetwork | None = None,
        shortest_side: int = 480,
        prompter: Prompter = grabcut,
    ) -> None:
        self.folder, self.names = find_videos(path)
        self._labels = [Labels(self.folder, name) for name in self.names]
        self._network, self._shortest_side, self._prompter = network, shortest_side, prompter
        self._open: tuple[int, OpenVideo] | None = None
        self._propagation: Propagation | None = None

    def overview(self) -> dict[str, Any]:
        """The videos, and which of them are labelled."""
        videos = []
        for labels in self._labels:
            try:
                video, problem = labels.video(), None
                masks, foreign = sorted(video.masks), labels.foreign()
            except OvosError as error:
                masks, foreign, problem = [], None, str(error)
            videos.append(
                {"name": labels.name, "labels": masks, "foreign": foreign and str(foreign), "problem": problem}
            )
        palette = [list(DAVIS_PALETTE[3 * i : 3 * i + 3]) for i in range(256)]
        return {
            "root": str(self.folder.root),
            "videos": videos,
            "palette": palette,
            "network": self._network is not None,
        }

    def state(self, index: int) -> dict[str, Any]:
        """What is known of a video by now; opens it."""
        video, labels = self._opened(index), self._labels[index]
        running = self._propagation
        foreign = labels.foreign()
        return {
            "frames": video.num_frames,
            "read": len(video.looks),
            "done": video.done,
            "problem": video.problem,
            "suggestion": video.suggestion,
            "labels": sorted(labels.video().masks),
            "foreign": foreign and str(foreign),
            "propagation": running
            and {
                "frames": sorted(running.masks),
                "running": running.running,
                "problem": running.problem,
                "fps": running.frames_per_second,
            },
        }

    def frame(self, index: int, t: int) -> bytes:
        """A frame as JPEG."""
        return self._opened(index).jpeg(t)

    def label(self, index: int, t: int) -> UInt8Array:
        """The mask of a frame, (H, W) uint8 object ids."""
        return self._labels[index].video().mask(t)

    def propagated(self, index: int, t: int) -> bytes | None:
        """The mask that was predicted for a frame, as gzip of H·W object ids; None where there is none yet."""
        self._opened(index)
        return None if self._propagation is None else self._propagation.masks.get(t)

    def prompt(self, index: int, t: int, box: Box, clicks: Sequence[Click]) -> npt.NDArray[np.bool_]:
        """Returns where the object in a box of a frame is, (H, W) bool, corrected by clicks.

        Raises:
            DataError: No object was found, or the box or a click lies outside of the frame.
        """
        return mask_from_box(self._opened(index).image(t), box, clicks, self._prompter)

    def save(self, index: int, t: int, mask: UInt8Array) -> dict[str, Any]:
        """Writes the mask of a frame, (H, W) uint8 object ids.

        Raises:
            DataError: It has not the frame's size or no object, or the video has a mask that was not written here.
        """
        video = self._opened(index)
        size = video.image(t).shape[:2] if 0 <= t < video.num_frames else None
        if mask.shape != size:
            raise DataError(f"frame {t} has {size}, its mask {mask.shape} pixels", "load the page again")
        self._labels[index].save(video.frame_name(t), mask)
        return self.state(index)

    def remove(self, index: int, t: int) -> dict[str, Any]:
        """Removes the mask of a frame that was written here."""
        self._labels[index].remove(t)
        return self.state(index)

    def propagate(self, index: int) -> dict[str, Any]:
        """Begins to predict the video from its labels; ends what was running.

        Raises:
            ConfigError: No network was given.
            DataError: The video has no label.
        """
        video, given = self._opened(index), self._labels[index].video()
        if self._network is None:
            raise ConfigError("no network was given", "start with --checkpoint RUN to see what it makes of a label")
        if not given.masks:
            raise DataError("the video has no label yet", "draw one, and save it")
        self.stop(index)
        labels = {t: given.mask(t) for t in given.masks}
        self._propagation = Propagation(self._network, video, labels, self._shortest_side)
        return self.state(index)

    def stop(self, index: int) -> dict[str, Any]:
        """Ends a propagation; what was predicted stays."""
        if self._propagation is not None:
            self._propagation.stop()
        return self.state(index)

    def close(self) -> None:
        """Ends what runs, and gives the disk back."""
        if self._propagation is not None:
            self._propagation.stop()
        if self._open is not None:
            self._open[1].close()
        self._propagation = self._open = None

    def _opened(self, index: int) -> OpenVideo:
        if not 0 <= index < len(self.names):
            raise IndexError(index)
        if self._open is None or self._open[0] != index:
            self.close()
            self._open = index, OpenVideo(self._labels[index].video(), self.folder.root)
        return self._open[1]
