"""Shares of shard folders belong to the folders, in whichever order they are given."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from test_plan import index, video

from ovos_ray.config import DataConfig, ExperimentConfig, override
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.folders.description import pack_command
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import ConfigError, DataError

YOUTUBE = index(*(video(f"y{i}", 30) for i in range(8)), interval=5, dataset="youtube_vos2018")
DAVIS = index(*(video(f"d{i}", 70) for i in range(2)), dataset="davis2017")


@pytest.mark.parametrize("swapped", [False, True])
def test_swapping_shards_swaps_no_weights(swapped: bool) -> None:
    folders, indices = ["shards/youtube_vos2018_all", "shards/davis2017_all"], [YOUTUBE, DAVIS]
    if swapped:
        folders.reverse()
        indices.reverse()
    data = DataConfig(
        shards=tuple(folders), multipliers=(("davis2017", 5),), frame_intervals=(("davis2017", 2),), max_skip=((0, 10),)
    )
    made = Plan(indices, data, seed=0, steps=100)
    counted = Counter(made.clip(position).video[0] for position in range(made.epoch_length * 10))
    assert counted == {"y": 80, "d": 100}
    gaps = {"y": 0, "d": 0}
    for clip in map(made.clip, range(2000)):
        gaps[clip.video[0]] = max(gaps[clip.video[0]], clip.frames[1] - clip.frames[0])
    assert gaps == {"y": 2, "d": 5}, "D of 10 frames, over an interval of 5 and 2"


def test_a_folder_of_another_name_is_known_by_what_it_holds() -> None:
    data = DataConfig(shards=("a", "b"), multipliers=(("davis2017", 3),))
    made = Plan([YOUTUBE, DAVIS], data, seed=0, steps=100)
    assert made.epoch_length == 8 + 6


def test_numbers_alone_belong_to_the_folders_in_their_order() -> None:
    assert Plan([YOUTUBE, DAVIS], DataConfig(shards=("a", "b"), multipliers=(1, 3)), seed=0, steps=9).epoch_length == 14
    with pytest.raises(ConfigError, match="3 values for 2"):
        Plan([YOUTUBE, DAVIS], DataConfig(shards=("a", "b"), multipliers=(1, 3, 5)), seed=0, steps=9)


def test_a_multiplier_of_no_folder_is_refused() -> None:
    data = DataConfig(shards=("shards/mine",), multipliers=(("davis2017", 5),))
    with pytest.raises(ConfigError, match=r"names davis2017.*shards/mine") as error:
        Plan([YOUTUBE], data, seed=0, steps=100)
    assert "data.multipliers=" in (error.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "expected"), [('[["davis2017", 5]]', (("davis2017", 5),)), ("1,5", (1, 5)), ("5", (5,)), ("", ())]
)
def test_multipliers_are_read_from_a_command_line(text: str, expected: object) -> None:
    assert override(ExperimentConfig(), {"data.multipliers": text}).data.multipliers == expected


def test_photographs_in_two_folders_are_refused() -> None:
    one = replace(index(video("fss/1", 1), video("BIG_small/2", 1), dataset="static_images"), split="fss")
    data = DataConfig(shards=("shards/fss", "shards/BIG_small"), source="static", multipliers=(("BIG_small", 5),))
    with pytest.raises(ConfigError, match="both hold 'fss/1'") as error:
        Plan([one, replace(one, split="train")], data, seed=0, steps=100)
    assert "--split BIG_small" in (error.value.remedy or "")


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("shards/fss", "ovos-ray pack static_images --root DIR --split fss --out shards/fss"),
        ("shards/davis2017_all", "ovos-ray pack davis2017 --root DIR --labels all --out shards/davis2017_all"),
        ("shards/youtube_vos2018", "ovos-ray pack youtube_vos2018 --root DIR --out shards/youtube_vos2018"),
        ("shards/mine", "ovos-ray pack DATASET --root DIR --out shards/mine"),
        ("shards/train", "ovos-ray pack DATASET --root DIR --out shards/train"),
    ],
)
def test_a_missing_folder_is_answered_with_the_command_that_makes_it(tmp_path: Path, folder: str, command: str) -> None:
    assert pack_command(folder) == command
    with pytest.raises(DataError) as error:
        ShardIndex.load(tmp_path / folder)
    assert command.split(" --out")[0] in (error.value.remedy or "")
