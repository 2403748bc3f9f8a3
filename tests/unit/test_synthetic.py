from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from texture_matching import match_textures

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.synthetic import SyntheticConfig, generate, render_video
from ovos_ray.errors import DataError
from ovos_ray.evaluate.infer.baselines import copy_first_mask, match_colours
from ovos_ray.evaluate.metrics import boundary_accuracy, region_similarity
from ovos_ray.seeding import generator

SMALL = SyntheticConfig(height=48, width=80, num_frames=5)


def _digest(root: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        state.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return state.hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    videos = {"train": 2, "val": 1}
    first = generate(tmp_path / "a", seed=3, num_videos=videos, config=SMALL)
    again = generate(tmp_path / "b", seed=3, num_videos=videos, config=SMALL)
    other = generate(tmp_path / "c", seed=4, num_videos=videos, config=SMALL)
    assert _digest(first) == _digest(again)
    assert _digest(first) != _digest(other)


def test_more_videos_leave_the_others_as_they_were(tmp_path: Path) -> None:
    few = generate(tmp_path / "few", num_videos={"train": 1}, config=SMALL)
    more = generate(tmp_path / "more", num_videos={"train": 2, "val": 1}, config=SMALL)
    for kind in ("JPEGImages", "Annotations"):
        assert _digest(few / kind / "480p" / "train-000") == _digest(more / kind / "480p" / "train-000")
    assert _digest(more / "JPEGImages/480p/train-000") != _digest(more / "JPEGImages/480p/val-000")


def test_it_is_a_davis_dataset_whose_objects_show_from_the_first_frame(tmp_path: Path) -> None:
    folder = open_dataset(generate(tmp_path / "s", num_videos={"train": 3, "val": 1}, config=SMALL), "synthetic")
    assert folder.splits == ("train", "val")
    for video in folder.videos("train"):
        assert (video.num_frames, video.size, video.first_label) == (5, (48, 80), 0)
        ids = set(np.unique(video.mask(0)).tolist())
        assert ids in ({0, 1, 2}, {0, 1, 2, 3})


@pytest.fixture(scope="module")
def difficulty() -> dict[str, float]:
    """J&F in percent of rules that learn nothing, on every fifth frame of the videos of `val`."""
    rules = {"copy": copy_first_mask, "colour": match_colours, "texture": match_textures}
    scores: dict[str, list[float]] = {name: [] for name in rules}
    for number in range(8):
        frames, masks = (part[::5] for part in render_video(generator(0, number, "synthetic val"), SyntheticConfig()))
        for name, rule in rules.items():
            found = np.stack([prediction.mask for prediction in rule(frames, {0: masks[0]})])
            for object_id in np.unique(masks[0])[1:]:
                pair = found[1:] == object_id, masks[1:] == object_id
                scores[name] += [region_similarity(*pair).mean(), boundary_accuracy(*pair).mean()]
    return {name: 100 * float(np.mean(values)) for name, values in scores.items()}


def test_copying_and_colours_leave_room(difficulty: dict[str, float]) -> None:
    assert 8 < difficulty["copy"] < 25
    assert 8 < difficulty["colour"] < 25


def test_what_is_needed_shows_in_the_labelled_frame(difficulty: dict[str, float]) -> None:
    assert difficulty["texture"] > 55


def test_objects_and_background_have_the_same_colours() -> None:
    """But for shading: every object's two colours are found in the background, and in like parts."""
    for number in range(4):
        frames, masks = render_video(generator(0, number, "synthetic val"), SMALL)
        pixels, ids = frames[0].astype(float), masks[0]
        hue = pixels / pixels.sum(-1, keepdims=True)
        means = [hue[ids == object_id].mean(0) for object_id in np.unique(ids)]
        assert np.abs(np.array(means) - means[0]).max() < 0.05
        other = render_video(generator(0, number + 1, "synthetic val"), SMALL)[0][0].astype(float)
        assert np.abs((other / other.sum(-1, keepdims=True)).mean((0, 1)) - means[0]).max() > 0.05


def test_no_video_is_in_two_splits(tmp_path: Path) -> None:
    videos = {"train": 3, "select": 3, "val": 3}
    folder = generate(tmp_path / "s", num_videos=videos, config=SMALL)
    frames = [path.read_bytes() for path in folder.glob("JPEGImages/480p/*/*.jpg")]
    assert len(frames) == 9 * SMALL.num_frames == len(set(frames))
    listed = [(folder / "ImageSets" / "2017" / f"{split}.txt").read_text().split() for split in videos]
    assert [name for names in listed for name in names] == [
        f"{split}-{number:03d}" for split in videos for number in range(3)
    ]


def test_objects_have_the_size_that_was_asked_for() -> None:
    config = SyntheticConfig(height=48, width=80, num_frames=2)
    _, masks = render_video(generator(0, 1, "synthetic val"), config)
    areas = [(masks[0] == object_id).sum() for object_id in np.unique(masks[0])[1:]]
    smallest, largest = (np.pi * (radius * 48) ** 2 for radius in config.radius)
    assert all(0.3 * smallest < area < 1.6 * largest for area in areas)


def test_a_complete_dataset_is_left_alone_and_another_folder_is_refused(tmp_path: Path) -> None:
    root = generate(tmp_path / "s", num_videos={"train": 1}, config=SMALL)
    stamp = (root / "synthetic.json").stat().st_mtime_ns
    assert generate(root, num_videos={"train": 1}, config=SMALL) == root
    assert (root / "synthetic.json").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="holds something else"):
        generate(root, num_videos={"train": 2}, config=SMALL)


def test_nothing_is_left_behind_by_an_interruption(tmp_path: Path) -> None:
    def interrupt(done: int, _: int, __: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "s", num_videos={"train": 2}, config=SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
