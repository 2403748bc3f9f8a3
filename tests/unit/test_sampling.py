"""How frames are drawn: by hand, against the published spans, and within the limits of a video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import index, plan, video

from ovos_ray.data.clips.sampling import grown, stcn, uniform_gaps
from ovos_ray.errors import ConfigError


class Told:
    """A generator that draws what it is told, and keeps what it could have drawn from."""

    def __init__(self, *draws: int) -> None:
        self.draws, self.asked = list(draws), []

    def choice(self, among: list[int]) -> int:
        self.asked.append(list(among))
        return self.draws.pop(0)

    def integers(self, end: int) -> int:
        self.asked.append(end)
        return self.draws.pop(0)


def test_a_grown_clip_by_hand() -> None:
    rng: Any = Told(5, 1, 7)
    assert grown(3, 0, 8, 4, 2, rng) == (1, 3, 5, 7)
    assert rng.asked == [[1, 2, 4, 5], [1, 2, 4, 6, 7], [0, 2, 4, 6, 7]]
    forward: Any = Told(2, 1)
    assert grown(0, 0, 8, 3, 2, forward) == (0, 1, 2)
    assert forward.asked == [[1, 2], [1, 3, 4]]


def test_a_clip_of_stcn_by_hand() -> None:
    rng: Any = Told(10, 5, 0)
    assert stcn(70, 5, rng) == (10, 16, 17), "a gap of D' + 1"
    assert rng.asked == [66, 6, 6]
    assert stcn(70, 5, Told(65, 3, 2)) == (65, 65, 68), "a frame twice near the end"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_frames", "max_gap", "uniform_span", "grown_span"),
    [(27, 3, 14.0, 9.9), (70, 5, 21.0, 13.5), (70, 10, 38.7, 23.5), (70, 15, 54.9, 33.0)],
)
def test_spans_are_those_of_the_published_rules(
    num_frames: int, max_gap: int, uniform_span: float, grown_span: float
) -> None:
    rng = np.random.default_rng(0)
    uniform = np.mean([uniform_gaps(0, num_frames - 1, 8, max_gap, rng)[-1] for _ in range(8000)])
    growing = np.mean([grown(0, 0, num_frames - 1, 8, max_gap, rng)[-1] for _ in range(8000)])
    assert uniform == pytest.approx(uniform_span, rel=0.02)
    assert growing == pytest.approx(grown_span, rel=0.02)


@pytest.mark.parametrize(("num_frames", "max_gap", "exceed", "repeat"), [(70, 5, 0.28, 0.015), (30, 1, 0.69, 0.08)])
def test_clips_of_stcn_exceed_and_repeat_as_often_as_published(
    num_frames: int, max_gap: int, exceed: float, repeat: float
) -> None:
    rng = np.random.default_rng(0)
    gaps = np.diff([stcn(num_frames, max_gap, rng) for _ in range(20_000)], axis=1)
    assert gaps.min() == 0
    assert np.mean((gaps > max_gap).any(1)) == pytest.approx(exceed, abs=0.015)
    assert np.mean((gaps == 0).any(1)) == pytest.approx(repeat, abs=0.006)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(2, 8),
    extra=st.integers(0, 30),
    seed_frame=st.integers(0, 37),
    max_gap=st.integers(1, 20),
    seed=st.integers(0, 2**16),
)
def test_grown_clips_are_distinct_and_close(n: int, extra: int, seed_frame: int, max_gap: int, seed: int) -> None:
    high = n - 1 + extra
    frames = grown(min(seed_frame, high), 0, high, n, max_gap, np.random.default_rng(seed))
    gaps = np.diff(frames)
    assert len(frames) == n
    assert min(seed_frame, high) in frames
    assert gaps.min() >= 1
    assert gaps.max() <= max_gap
    assert frames[0] >= 0
    assert frames[-1] <= high


@pytest.mark.parametrize(("side", "both"), [("both", True), ("after", False)])
@pytest.mark.parametrize("sampling", ["uniform_gaps", "grown"])
def test_clips_lie_on_the_sides_of_the_label_that_are_asked_for(sampling: str, side: str, both: bool) -> None:
    made = plan(
        index(video("v", 41, (20,)), video("late", 41, (38,))),
        clip_length=5,
        max_skip=((0.0, 4),),
        frame_sampling=sampling,
        label_side=side,
    )
    clips = [made.clip(position) for position in range(200)]
    assert {clip.frames[0] for clip in clips} == ({20, 38} if both else {20}), "the label comes first"
    ascending = {bool(np.all(np.diff(clip.frames) > 0)) for clip in clips}
    assert ascending == ({True, False} if both else {True})
    assert all(np.all(np.diff(clip.frames) > 0) or np.all(np.diff(clip.frames) < 0) for clip in clips)
    assert [exclusion.video for exclusion in made.excluded] == ([] if both else ["late"])


@pytest.mark.parametrize(("sampling", "n"), [("stcn", 3), ("grown", 8)])
def test_supervised_clips_start_anywhere_run_both_ways_and_begin_with_an_object(sampling: str, n: int) -> None:
    from dataclasses import replace

    whole = video("v", 40, tuple(range(40)))
    empty = replace(whole, objects={f: boxes if f >= 10 else () for f, boxes in whole.objects.items()})
    made = plan(
        index(empty), clip_length=n, clip_start="any", time_reversal=0.5, frame_sampling=sampling, max_skip=((0.0, 5),)
    )
    clips = [made.clip(position).frames for position in range(1000)]
    assert min(frames[0] for frames in clips) == 10, "the first frame shows an object, also of a reversed clip"
    assert 0.3 < np.mean([frames[-1] < frames[0] for frames in clips]) < 0.7
    assert min(min(frames) for frames in clips) < 10, "others need not"
    assert len({frames[0] for frames in clips}) > 20


def test_a_clip_of_unlabelled_frames_is_never_drawn_for_full_supervision() -> None:
    made = plan(index(video("v", 30, tuple(range(12, 30)))), clip_length=8, clip_start="any", frame_sampling="grown")
    assert min(min(made.clip(position).frames) for position in range(300)) == 12


@pytest.mark.parametrize("data", [{"clip_length": 8, "clip_start": "any"}, {"clip_length": 3}])
def test_stcns_rule_is_refused_where_it_does_not_apply(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="three frames that start anywhere"):
        plan(index(video("v", 40, tuple(range(40)))), frame_sampling="stcn", **data)
