"""Frame sampling: which frames of a video become a clip. Pure functions of their arguments and a generator.

`uniform_gaps` is the reading of section 4.1 that knows no code: every gap is uniform up to D. `grown` is what XMem and
Cutie publish, and gives clips about 0.6 times as long; `stcn` is what STCN publishes.
"""

from __future__ import annotations

import numpy as np

__all__ = ["grown", "stcn", "uniform_gaps"]


def uniform_gaps(start: int, room: int, clip_length: int, max_gap: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draws a clip of distinct frames that run away from `start`.

    Each of the n-1 gaps is uniform in 1 … min(max_gap, what leaves room for the rest).

    Args:
        start: Index of the reference frame.
        room: Frames available after it; negative: before it, so that the clip runs backwards.
        clip_length: n.
        max_gap: D', the largest gap in frames of this video.
        rng: Where the gaps are drawn from.
    """
    direction, left = (1, room) if room >= 0 else (-1, -room)
    frames = [start]
    for still_needed in range(clip_length - 2, -1, -1):
        gap = int(rng.integers(1, min(max_gap, left - still_needed) + 1))
        frames.append(frames[-1] + direction * gap)
        left -= gap
    return tuple(frames)


def grown(
    seed_frame: int, low: int, high: int, clip_length: int, max_gap: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """Draws a clip that grows from one frame, in ascending order, as XMem and Cutie do.

    Each further frame is uniform among the unused ones within `max_gap` of any frame chosen so far.

    Args:
        seed_frame: The frame to begin with.
        low: First frame that may be chosen.
        high: Last frame that may be chosen; there are at least n from `low` on.
        clip_length: n.
        max_gap: D', the largest gap in frames of this video.
        rng: Where the frames are drawn from.
    """
    chosen = [seed_frame]
    within: set[int] = set()
    for _ in range(clip_length - 1):
        newest = chosen[-1]
        within.update(range(max(low, newest - max_gap), min(high, newest + max_gap) + 1))
        chosen.append(int(rng.choice(sorted(within.difference(chosen)))))
    return tuple(sorted(chosen))


def stcn(num_frames: int, max_gap: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draws a clip of three frames as STCN does: gaps of up to D' + 1, and frames that repeat near the end of a video.

    Args:
        num_frames: L, frames of the video, from which it may start anywhere.
        max_gap: D'.
        rng: Where the frames are drawn from.
    """
    jump = min(num_frames, max_gap)
    first = int(rng.integers(num_frames - jump + 1))
    second = min(first + int(rng.integers(jump + 1)) + 1, num_frames - jump, num_frames - 1)
    third = min(second + int(rng.integers(jump + 1)) + 1, num_frames - jump // 2, num_frames - 1)
    return first, second, third
