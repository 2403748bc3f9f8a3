"""What a network makes of the labels drawn so far: masks of all frames, both ways, nearest frames first."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ovos_ray.arrays import UInt8Array
from ovos_ray.errors import OvosError
from ovos_ray.label.videos import OpenVideo

if TYPE_CHECKING:
    from ovos_ray.evaluate.infer.tracker import Tracker
    from ovos_ray.networks.base import VOSNetwork

__all__ = ["Propagation"]


class Propagation:
    """A prediction that grows in a thread, until it is complete or another one is wanted.

    As `predict --direction both`: from the earliest mask back to frame 0, and from it on, later masks as corrections.
    The two walks take turns, so that frames near the mask come first.

    Args:
        network: The network, where it is to run.
        video: The video.
        labels: Masks by frame index, (H, W) uint8 object ids; at least one.
        shortest_side: Frames are scaled down to it.

    Attributes:
        masks: The H·W object ids of each frame predicted so far, as gzip; by index.
        running: Whether more will come.
        problem: Why it ended early, or None.
    """

    def __init__(
        self, network: VOSNetwork, video: OpenVideo, labels: Mapping[int, UInt8Array], shortest_side: int
    ) -> None:
        from ovos_ray.evaluate.infer.tracker import Tracker

        self.masks: dict[int, bytes] = {}
        self.running = True
        self.problem: str | None = None
        self._video, self._labels, self._stopped = video, dict(labels), False
        self._began, self._seconds = time.perf_counter(), 0.0
        ways = [Tracker(network, shortest_side=shortest_side) for _ in range(2)]
        self._thread = threading.Thread(target=self._work, args=ways, name="propagate", daemon=True)
        self._thread.start()

    @property
    def frames_per_second(self) -> float:
        """How fast it went so far."""
        return len(self.masks) / max(self._seconds or time.perf_counter() - self._began, 1e-3)

    def stop(self) -> None:
        """Ends it; what was predicted stays."""
        self._stopped = True
        self._thread.join()

    def _work(self, forward: Tracker, backward: Tracker) -> None:
        try:
            while not (self._video.done or self._stopped):  # the last frame of a video file is not known before
                time.sleep(0.02)
            start, end = min(self._labels), self._video.num_frames
            steps = [self._walk(forward, range(start, end)), self._walk(backward, range(start, -1, -1))]
            while steps and not self._stopped:
                steps = [step for step in steps if next(step, False)]
        except (OvosError, RuntimeError, OSError) as error:
            self.problem = str(error)
        finally:
            self._seconds = time.perf_counter() - self._began
            self.running = False

    def _walk(self, tracker: Tracker, order: Iterable[int]) -> Iterator[bool]:
        for t in order:
            if t in self._labels:
                tracker.add(self._labels[t])
            mask = tracker.step(self._video.image(t))
            self.masks.setdefault(t, gzip.compress(mask.tobytes(), 1))
            yield True
