"""The plan is arithmetic: these tests do the arithmetic by hand, or count."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovos_ray.config import AugmentationConfig, DataConfig
from ovos_ray.data.clips.curricula import frame_geometry_at, max_skip_at
from ovos_ray.data.clips.plan import Plan, slice_for_rank
from ovos_ray.data.clips.sampling import uniform_gaps
from ovos_ray.data.masks import ObjectBox
from ovos_ray.data.shards.index import LabelBudget, ShardFile, ShardIndex, VideoEntry
from ovos_ray.errors import ConfigError, DataError


def video(name: str, num_frames: int, label_frames: tuple[int, ...] = (0,), objects: int = 2) -> VideoEntry:
    boxes = tuple(ObjectBox(i + 1, 0, 0, 8, 8, 64) for i in range(objects))
    return VideoEntry(
        name=name,
        num_frames=num_frames,
        height=48,
        width=64,
        frame_names=tuple(f"{i:05d}" for i in range(num_frames)),
        label_frames=label_frames,
        objects=dict.fromkeys(label_frames, boxes),
        shard=0,
        first_row=0,
    )


def index(*videos: VideoEntry, interval: int = 1, dataset: str = "toy") -> ShardIndex:
    return ShardIndex(
        dataset=dataset,
        layout="davis2017",
        split="train",
        labels="first",
        frame_interval=interval,
        shortest_side=None,
        num_reencoded=0,
        budget=LabelBudget(len(videos), sum(v.num_frames for v in videos)),
        digest="0",
        source_digest="0",
        rows_per_group=4,
        files=(ShardFile("frames-00000.parquet", sum(v.num_frames for v in videos)),),
        videos=tuple(videos),
    )


def plan(*indices: ShardIndex, seed: int = 0, steps: int = 100, **data: object) -> Plan:
    config = DataConfig(shards=tuple(f"s{i}" for i in range(len(indices))), **data)  # type: ignore[arg-type]
    return Plan(indices, config, seed=seed, steps=steps)


STCN_CURRICULUM = ((0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (0.8, 5))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 5), (9, 5), (10, 10), (19, 10), (20, 15), (29, 15), (30, 20), (40, 25), (79, 25), (80, 5), (99, 5)],
)
def test_max_skip_changes_exactly_at_its_fractions(step: int, expected: int) -> None:
    assert max_skip_at(STCN_CURRICULUM, step, 100) == expected


@pytest.mark.parametrize("curriculum", [(), ((0.1, 5),), ((0.0, 5), (0.5, 8), (0.3, 9))])
def test_a_broken_curriculum_is_refused(curriculum: tuple[tuple[float, int], ...]) -> None:
    with pytest.raises(ConfigError, match="not a curriculum"):
        max_skip_at(curriculum, 0, 100)


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(0, 30),
    n=st.integers(2, 8),
    extra=st.integers(0, 40),
    max_gap=st.integers(1, 30),
    forward=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_clips_start_at_the_label_run_away_from_it_and_respect_the_gap(
    start: int, n: int, extra: int, max_gap: int, forward: bool, seed: int
) -> None:
    room = n - 1 + extra
    frames = uniform_gaps(start, room if forward else -room, n, max_gap, np.random.default_rng(seed))
    gaps = np.diff(frames) * (1 if forward else -1)
    assert frames[0] == start
    assert len(frames) == n
    assert gaps.min() >= 1
    assert gaps.max() <= max_gap
    assert abs(frames[-1] - start) <= room


def test_gaps_are_uniform() -> None:
    rng = np.random.default_rng(0)
    gaps = Counter(int(uniform_gaps(0, 100, 2, 5, rng)[1]) for _ in range(10_000))
    assert sorted(gaps) == [1, 2, 3, 4, 5]
    # Chi-squared with 4 degrees of freedom exceeds 18.5 with probability 0.001.
    assert sum((count - 2000) ** 2 / 2000 for count in gaps.values()) < 18.5


def test_every_eligible_video_is_visited_exactly_as_often_as_its_multiplier_says() -> None:
    davis = index(video("a", 10), video("b", 10), video("short", 2))
    youtube = index(*(video(f"v{i}", 12) for i in range(7)))
    made = plan(davis, youtube, multipliers=(5, 1), clip_length=3)
    assert made.epoch_length == 2 * 5 + 7
    for epoch in range(2):
        positions = range(epoch * made.epoch_length, (epoch + 1) * made.epoch_length)
        counts = Counter((clip.source, clip.video) for clip in map(made.clip, positions))
        expected = {(0, "a"): 5, (0, "b"): 5} | {(1, f"v{i}"): 1 for i in range(7)}
        assert counts == expected
    assert [e.video for e in made.excluded] == ["short"]
    assert "2 frames" in made.excluded[0].reason


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=3),
    multipliers=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    n=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_epochs_visit_every_long_enough_video_exactly_and_list_the_others(
    lengths: list[list[int]], multipliers: list[int], n: int, seed: int
) -> None:
    sources = [
        index(*(video(f"v{i}", length) for i, length in enumerate(part)), dataset=f"d{source}")
        for source, part in enumerate(lengths)
    ]
    times = tuple(multipliers[: len(sources)])
    expected = {
        (source, f"v{i}"): times[source]
        for source, part in enumerate(lengths)
        for i, length in enumerate(part)
        if length >= n
    }
    if not expected:
        with pytest.raises(DataError, match="no video can give a clip"):
            plan(*sources, multipliers=times, clip_length=n, seed=seed)
        return
    made = plan(*sources, multipliers=times, clip_length=n, seed=seed)
    assert made.epoch_length == sum(expected.values())
    for epoch in range(3):
        clips = [made.clip(epoch * made.epoch_length + place) for place in range(made.epoch_length)]
        assert Counter((clip.source, clip.video) for clip in clips) == expected
    short = {(f"d{s}", f"v{i}") for s, part in enumerate(lengths) for i, length in enumerate(part) if length < n}
    assert {(e.dataset, e.video) for e in made.excluded} == short


def test_every_gap_of_a_clip_is_uniform_where_there_is_room() -> None:
    made = plan(index(*(video(f"v{i}", 60) for i in range(5))), clip_length=5, max_skip=((0.0, 4),))
    clips = [made.clip(p).frames for p in range(4000)]
    for place in range(4):
        counts = Counter(int(np.diff(frames)[place]) for frames in clips)
        assert sorted(counts) == [1, 2, 3, 4]
        # Chi-squared with 3 degrees of freedom exceeds 16.3 with probability 0.001.
        assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 16.3


def test_frame_interval_divides_the_skip() -> None:
    made = plan(index(*(video(f"v{i}", 60) for i in range(30)), interval=5), clip_length=3, max_skip=((0.0, 12),))
    gaps = [gap for p in range(300) for gap in np.diff(made.clip(p).frames)]
    assert set(gaps) == {1, 2}  # 12 // 5
    slow = plan(index(video("a", 60), interval=5), clip_length=3, max_skip=((0.0, 3),))
    assert set(np.diff(slow.clip(0).frames)) == {1}  # max(1, 3 // 5)


def test_the_global_batch_does_not_depend_on_the_number_of_workers() -> None:
    made = plan(index(*(video(f"v{i}", 20) for i in range(11))), batch_size=4)
    for step in range(30):
        whole = made.clips(step)
        assert [clip.position for clip in whole] == list(range(4 * step, 4 * step + 4))
        for world_size in (1, 2, 4):
            parts = [clip for rank in range(world_size) for clip in made.clips(step, rank, world_size)]
            assert parts == whole


@pytest.mark.parametrize(
    ("until", "step", "steps", "expected"),
    [
        (100_000 / 110_000, 99_999, 110_000, True),
        (100_000 / 110_000, 100_000, 110_000, False),
        (1.0, 109_999, 110_000, True),
        (0.0, 0, 110_000, False),
        (0.3, 2, 10, True),
        (0.3, 3, 10, False),
        (0.7, 6, 10, True),
        (0.7, 7, 10, False),  # 0.7 * 10 is not 7 in binary
    ],
)
def test_the_last_phase_begins_at_its_step(until: float, step: int, steps: int, expected: bool) -> None:
    assert frame_geometry_at(until, step, steps) is expected


def test_the_last_phase_depends_on_the_position_alone() -> None:
    videos = [video(f"v{i}", 20) for i in range(3)]
    phased = plan(index(*videos), batch_size=4, augmentation=AugmentationConfig(frame_geometry_until=0.75), steps=8)
    whole = plan(index(*videos), batch_size=4, steps=8)
    positions = list(range(4 * 8))[::-1]  # in any order, as after resuming
    flags = {p: phased.clip(p).frame_geometry for p in positions}
    assert flags == {p: p < 24 for p in positions}  # 24 = 0.75 * 8 steps of 4 clips
    assert all(whole.clip(p).frame_geometry for p in positions)
    parts = [clip for rank in range(2) for clip in phased.clips(6, rank, 2)]
    assert parts == phased.clips(6)
    assert [dataclasses.replace(clip, frame_geometry=True) for clip in parts] == whole.clips(6)


def test_another_seed_gives_another_plan() -> None:
    videos = index(*(video(f"v{i}", 20) for i in range(11)))
    assert plan(videos).clips(3) == plan(videos).clips(3)
    assert plan(videos).clips(3) != plan(videos, seed=1).clips(3)
    first, other = ([clip.video for clip in map(p.clip, range(11))] for p in (plan(videos), plan(videos, seed=1)))
    assert first != other


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be split over 5 workers"):
        plan(index(video("a", 20)), batch_size=4).clips(0, 0, 5)


def test_a_label_in_the_middle_trains_clips_to_both_sides() -> None:
    made = plan(index(video("a", 41, label_frames=(20,))), clip_length=4)
    clips = [made.clip(p) for p in range(60)]
    assert all(clip.frames[0] == 20 for clip in clips)
    directions = Counter(np.sign(clip.frames[1] - 20) for clip in clips)
    assert min(directions[1], directions[-1]) > 15
    assert all(len(set(np.sign(np.diff(clip.frames)))) == 1 for clip in clips)


@settings(max_examples=150, deadline=None)
@given(
    num_frames=st.integers(2, 40),
    label=st.integers(0, 39),
    n=st.integers(2, 6),
    max_skip=st.integers(1, 9),
    interval=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_clip_starts_at_the_label_and_runs_to_one_side_of_it(
    num_frames: int, label: int, n: int, max_skip: int, interval: int, seed: int
) -> None:
    label = min(label, num_frames - 1)
    videos = index(video("a", num_frames, label_frames=(label,)), video("b", 50), interval=interval)
    made = plan(videos, clip_length=n, max_skip=((0.0, max_skip),), seed=seed)
    clips = [clip for clip in map(made.clip, range(24)) if clip.video == "a"]
    before, after = label >= n - 1, num_frames - 1 - label >= n - 1
    # A video is left out exactly if neither side is long enough, and then it is listed.
    assert bool(clips) == (before or after)
    assert [e.video for e in made.excluded] == ([] if clips else ["a"])
    for clip in clips:
        gaps = np.diff(clip.frames)
        assert clip.frames[0] == label
        assert len(set(np.sign(gaps))) == 1, "no clip turns round"
        assert (gaps[0] > 0 and after) or (gaps[0] < 0 and before)
        assert 1 <= np.abs(gaps).min() <= np.abs(gaps).max() <= max(1, max_skip // interval)
        assert 0 <= min(clip.frames) <= max(clip.frames) < num_frames


def test_a_label_near_the_end_trains_clips_before_it() -> None:
    made = plan(index(video("a", 20, label_frames=(18,))), clip_length=4)
    assert all(clip.frames[1] < 18 for clip in map(made.clip, range(10)))


def test_object_orders_are_permutations_of_what_the_label_shows() -> None:
    made = plan(index(video("a", 20, objects=4)))
    orders = {made.clip(p).object_order for p in range(40)}
    assert len(orders) > 5
    assert {tuple(sorted(order)) for order in orders} == {(1, 2, 3, 4)}


def test_fully_supervised_clips_start_anywhere_and_may_run_backwards() -> None:
    dense = index(video("a", 12, label_frames=tuple(range(12))))
    made = plan(dense, clip_start="any", time_reversal=0.5, clip_length=4, max_skip=((0.0, 2),))
    clips = [made.clip(p).frames for p in range(200)]
    assert len({min(frames) for frames in clips}) > 5
    backwards = sum(frames[0] > frames[-1] for frames in clips)
    assert 60 < backwards < 140


def test_no_video_long_enough_is_an_error_that_says_why() -> None:
    with pytest.raises(DataError, match="toy/a: 2 frames"):
        plan(index(video("a", 2)), clip_length=5)
    with pytest.raises(DataError, match="no labelled frame shows an object"):
        plan(index(video("a", 9, objects=0)), clip_length=5)


def test_slices_are_consecutive_parts_that_differ_by_one_clip_at_most() -> None:
    assert [list(slice_for_rank(3, 8, r, 4)) for r in range(4)] == [[24, 25], [26, 27], [28, 29], [30, 31]]
    assert [list(slice_for_rank(3, 4, r, 3)) for r in range(3)] == [[12], [13], [14, 15]]
    for batch_size, workers in itertools.product(range(1, 20), range(1, 20)):
        if workers <= batch_size:
            parts = [slice_for_rank(7, batch_size, rank, workers) for rank in range(workers)]
            assert [p for part in parts for p in part] == list(range(7 * batch_size, 8 * batch_size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_clips_start_at_any_of_several_labels_and_run_to_a_side_with_room() -> None:
    several = index(video("a", 20, (2, 9, 17)), video("b", 20, (18,)))
    made = plan(several, clip_start="labels", label_side="after", clip_length=4, max_skip=((0.0, 2),))
    clips = [made.clip(position) for position in range(400)]
    assert Counter(clip.frames[0] for clip in clips).keys() == {2, 9}, "17 and b leave no room after them"
    assert [one.video for one in made.excluded] == ["b"]
    both = plan(several, clip_start="labels", label_side="both", clip_length=4, max_skip=((0.0, 2),))
    starts = Counter((clip.video, clip.frames[0]) for clip in (both.clip(position) for position in range(600)))
    assert starts.keys() == {("a", 2), ("a", 9), ("a", 17), ("b", 18)}
    assert all(80 < starts["a", frame] < 120 for frame in (2, 9, 17)), "each as often as the others"
    first = plan(several, clip_start="label", label_side="both", clip_length=4)
    assert {first.clip(position).frames[0] for position in range(40)} == {2, 18}
