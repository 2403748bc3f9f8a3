from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ovos_ray.data.layout import open_dataset
from ovos_ray.data.synthetic import SyntheticConfig, generate, render_video
from ovos_ray.errors import DataError
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


def test_copying_the_first_mask_leaves_room() -> None:
    overlaps = []
    for number in range(6):
        _, masks = render_video(generator(0, number, "synthetic val"), SyntheticConfig(num_frames=12))
        for object_id in np.unique(masks[0])[1:]:
            first, later = masks[0] == object_id, masks[1:-1] == object_id
            overlaps.append(np.mean((first & later).sum((1, 2)) / (first | later).sum((1, 2))))
    assert 0.15 < np.mean(overlaps) < 0.4


def test_objects_and_background_share_colours() -> None:
    """Every object has some colour that is as near to the background's as to its own mean."""
    frames, masks = render_video(generator(0, 0, "synthetic val"), SMALL)
    pixels, ids = frames[0].reshape(-1, 3).astype(float), masks[0].ravel()
    background = pixels[ids == 0]
    for object_id in np.unique(ids)[1:]:
        own = pixels[ids == object_id]
        nearest = np.sqrt(((own[:, None] - background[None]) ** 2).sum(-1)).min(1)
        assert np.quantile(nearest, 0.25) < 25


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
