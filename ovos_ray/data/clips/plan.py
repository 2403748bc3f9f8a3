"""The plan: which clip is trained at which position, as arithmetic on (indices, seed, position).

The global batch of step k is positions k·G … (k+1)·G-1, whatever the number of workers; rank r of W takes the r-th of
W equal parts. Resuming at step k, an epoch's order and the D in force are therefore functions, not state.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovos_ray import seeding
from ovos_ray.config import DataConfig
from ovos_ray.data.clips import sampling
from ovos_ray.data.clips.curricula import frame_geometry_at, is_static_step, max_skip_at
from ovos_ray.data.clips.shares import check_shared_images, per_shard
from ovos_ray.data.shards.index import ShardIndex, VideoEntry
from ovos_ray.data.shards.video_entry import VideoOutline
from ovos_ray.errors import ConfigError, DataError

__all__ = ["Clip", "Exclusion", "Plan", "check_split", "slice_for_rank"]

_FRAME_TRIES = 100


@dataclass(frozen=True)
class Clip:
    """One sample of the plan.

    Attributes:
        position: Place in the plan; step = position // G.
        source: Which of `DataConfig.shards` it comes from.
        video: Name of the video.
        frames: Indices of the n frames, the reference frame first; of a static clip the reference frame alone.
        max_skip: D in force, in video frames.
        object_order: The ids of the reference frame in a random order; objects are kept from the front.
        seed: Seed of the augmentation.
        frame_geometry: Whether frames are rotated and sheared on their own, as far as the augmentation does that.
        merged: Another clip whose objects are pasted into this one, or None (`data.clip_merging`); of a static clip,
            the image onto which its own objects are pasted (`data.static_clips`).
        static: Whether its n frames are synthesised from the one of `frames`.
    """

    position: int
    source: int
    video: str
    frames: tuple[int, ...]
    max_skip: int
    object_order: tuple[int, ...]
    seed: int
    frame_geometry: bool = True
    merged: Clip | None = None
    static: bool = False


@dataclass(frozen=True)
class Exclusion:
    """A video that cannot be trained on, and why."""

    dataset: str
    video: str
    reason: str


@dataclass(frozen=True)
class _Item:
    source: int
    video: VideoEntry
    starts: tuple[int, ...]
    interval: int
    low: int
    """The first frame that a clip may show."""


def check_split(batch_size: int, world_size: int) -> None:
    """Checks that every worker gets a part of the global batch.

    Raises:
        ConfigError: There are more workers than clips.
    """
    if batch_size < world_size:
        raise ConfigError(
            f"data.batch_size = {batch_size} cannot be split over {world_size} workers",
            "lower train.num_workers, or raise data.batch_size, which is the global batch",
        )


def slice_for_rank(step: int, batch_size: int, rank: int, world_size: int) -> range:
    """Returns the positions of one rank's part of the global batch of a step; parts differ by one clip at most."""
    first, end = (part * batch_size // world_size for part in (rank, rank + 1))
    return range(step * batch_size + first, step * batch_size + end)


class Plan:
    """The clips of a run.

    Args:
        indices: One index for each of `data.shards`.
        data: The data part of the configuration.
        seed: The run seed.
        steps: Optimiser steps of the whole run, to which the curriculum's fractions refer.

    Raises:
        DataError: No video is long enough.
        ConfigError: Multipliers or frame intervals do not match the shards.
    """

    def __init__(self, indices: Sequence[ShardIndex], data: DataConfig, *, seed: int, steps: int) -> None:
        self.data, self.seed, self.steps = data, seed, steps
        if data.frame_sampling == "stcn" and (data.clip_length, data.clip_start) != (3, "any"):
            raise ConfigError(
                "data.frame_sampling=stcn draws clips of three frames that start anywhere",
                "set data.clip_length=3 and data.clip_start=any, or data.frame_sampling=uniform_gaps",
            )
        if data.source == "static":
            check_shared_images(indices, data.shards)
        multipliers = per_shard("multipliers", data.multipliers, indices, data.shards, [1] * len(indices))
        stored = [index.frame_interval for index in indices]
        intervals = per_shard("frame_intervals", data.frame_intervals, indices, data.shards, stored)
        self._indices, self._intervals = indices, intervals
        places = [np.empty((0, 2), np.int32)]  # (source, place in its index), not entries: there may be millions
        excluded: list[Exclusion] = []
        for source, index in enumerate(indices):
            fit = []
            for place, outline in enumerate(index.outlines()):
                starts, _, reason = self._starts(outline)
                if starts:
                    fit.append(place)
                else:
                    excluded.append(Exclusion(index.dataset, outline.name, reason))
            of_source = np.stack([np.full(len(fit), source, np.int32), np.array(fit, np.int32)], 1)
            places.append(np.repeat(of_source, multipliers[source], axis=0))
        self.excluded = tuple(excluded)
        self._items = np.concatenate(places)
        if not len(self._items):
            reasons = "; ".join(f"{e.dataset}/{e.video}: {e.reason}" for e in excluded[:3]) or "the shards are empty"
            raise DataError(
                f"no video can give a clip of {data.clip_length} frames ({reasons})",
                "lower data.clip_length, or pack videos that go on after their labelled frame",
            )

    @classmethod
    def load(cls, data: DataConfig, *, seed: int, steps: int) -> Plan:
        """Returns the plan of `data.shards`, whose indices are read; see `Plan` for the rest."""
        return cls([ShardIndex.shared(folder) for folder in data.shards], data, seed=seed, steps=steps)

    def _item(self, number: int) -> _Item:
        source, place = self._items[number].tolist()
        video = self._indices[source].videos[place]
        starts, low, _ = self._starts(video.outline)
        return _Item(source, video, starts, self._intervals[source], low)

    def _starts(self, video: VideoOutline) -> tuple[tuple[int, ...], int, str]:
        """Returns the frames a clip of this video may start from, and the first it may show; or why there is none."""
        n, last = self.data.clip_length, video.num_frames - 1
        labelled = video.shown
        if not labelled:
            return (), 0, "no labelled frame shows an object"
        if self.data.source == "static":
            return labelled, 0, ""
        if self.data.clip_start != "any":
            both = self.data.label_side == "both"
            allowed = labelled[:1] if self.data.clip_start == "label" else labelled
            if starts := tuple(t for t in allowed if last - t + 1 >= n or (both and t + 1 >= n)):
                return starts, 0, ""
            return (), 0, f"{last - labelled[0] + 1} frames from labelled frame {labelled[0]} on, {n} are needed"
        # Every frame of such a clip needs its label; the published sets label all the frames they contain.
        low = video.num_frames
        for frame in reversed(video.label_frames):
            if frame != low - 1:
                break
            low = frame
        shown = [frame for frame in labelled if frame >= low]
        if self.data.frame_sampling == "uniform_gaps":
            starts = tuple(frame for frame in shown if last - frame + 1 >= n)
        else:
            starts = tuple(range(low, last + 1)) if shown and last - low + 1 >= n else ()
        return starts, low, f"no run of {n} labelled frames up to the end of the video"

    @property
    def epoch_length(self) -> int:
        """Clips per epoch: every eligible video, times its multiplier."""
        return len(self._items)

    def max_skip(self, step: int) -> int:
        """Returns D in force at an optimiser step, in video frames."""
        return max_skip_at(self.data.max_skip, step, self.steps)

    @functools.lru_cache(maxsize=2)  # noqa: B019  (a plan lives as long as its run)
    def _epoch_order(self, epoch: int) -> np.ndarray:
        return seeding.generator(self.seed, epoch, "epoch").permutation(len(self._items))

    def clip(self, position: int) -> Clip:
        """Returns the clip at a position of training."""
        epoch, place = divmod(position, len(self._items))
        item = self._item(self._epoch_order(epoch)[place])
        step = position // self.data.batch_size
        static = self.data.source == "static" or is_static_step(self.data.static_share, self.seed, step, self.steps)
        clip = self._draw(item, position, seeding.generator(self.seed, position, "clip"), "augmentation", static)
        if static and self.data.static_clips == "pasted":
            rng = seeding.generator(self.seed, position, "pasted clip")
            other = self._item(int(rng.integers(len(self._items))))
            return dataclasses.replace(clip, merged=self._draw(other, position, rng, "pasted augmentation", static))
        if not self.data.clip_merging or static:
            return clip
        rng = seeding.generator(self.seed, position, "merged clip")
        if rng.random() >= self.data.clip_merging:
            return clip
        other = self._item(int(rng.integers(len(self._items))))
        return dataclasses.replace(clip, merged=self._draw(other, position, rng, "merged augmentation"))

    def _draw(self, item: _Item, position: int, rng: np.random.Generator, purpose: str, static: bool = False) -> Clip:
        step, augmentation = position // self.data.batch_size, self.data.augmentation
        max_skip = self.max_skip(step)
        start = int(rng.choice(item.starts))
        frames = (start,) if static else self._frames(item, start, max(1, max_skip // item.interval), rng)
        ids = [box.object_id for box in item.video.objects.get(frames[0], ())]
        return Clip(
            position=position,
            source=item.source,
            video=item.video.name,
            frames=frames,
            max_skip=max_skip,
            object_order=tuple(int(i) for i in rng.permutation(ids)),
            seed=seeding.integer_seed(self.seed, position, purpose),
            frame_geometry=augmentation is None
            or frame_geometry_at(augmentation.frame_geometry_until, step, self.steps),
            static=static,
        )

    def _frames(self, item: _Item, start: int, max_gap: int, rng: np.random.Generator) -> tuple[int, ...]:
        n, last = self.data.clip_length, item.video.num_frames - 1
        if self.data.clip_start == "any" and self.data.frame_sampling != "uniform_gaps":
            return self._published_frames(item, start, max_gap, rng)
        after, before = last - start, start
        # A label in the middle trains clips to either side of it; a label at an end leaves one side.
        forward = after >= n - 1
        if self.data.clip_start != "any" and self.data.label_side == "both" and forward and before >= n - 1:
            forward = bool(rng.random() < 0.5)
        if self.data.frame_sampling == "grown":
            low, high = (start, last) if forward else (0, start)
            frames = sampling.grown(start, low, high, n, max_gap, rng)
            return frames if forward else frames[::-1]
        frames = sampling.uniform_gaps(start, after if forward else -before, n, max_gap, rng)
        if self.data.time_reversal and rng.random() < self.data.time_reversal:
            frames = frames[::-1]
        return frames

    def _published_frames(self, item: _Item, start: int, max_gap: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Draws as the published code does: anywhere, perhaps reversed, anew until the first frame shows an object."""
        last = item.video.num_frames - 1
        for _ in range(_FRAME_TRIES):
            if self.data.frame_sampling == "stcn":
                drawn = sampling.stcn(last - item.low + 1, max_gap, rng)
                frames = tuple(item.low + frame for frame in drawn)
            else:
                frames = sampling.grown(start, item.low, last, self.data.clip_length, max_gap, rng)
            if self.data.time_reversal and rng.random() < self.data.time_reversal:
                frames = frames[::-1]
            if item.video.objects.get(frames[0]):
                break
            start = int(rng.choice(item.starts))
        return frames

    def clips(self, step: int, rank: int = 0, world_size: int = 1) -> list[Clip]:
        """Returns one rank's clips of an optimiser step.

        Raises:
            ConfigError: There are more workers than clips.
        """
        check_split(self.data.batch_size, world_size)
        return [self.clip(position) for position in slice_for_rank(step, self.data.batch_size, rank, world_size)]
