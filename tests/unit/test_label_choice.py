"""The label budget of shards: exactly the labels that were asked for, and no other annotation bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.data.folders.open import DatasetFolder
from ovos_ray.data.masks import encode_mask
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.packing.pack import Labels, pack

PNG = b"\x89PNG"


@pytest.mark.parametrize(
    ("labels", "kind", "frames"),
    [
        (1, "first", [(0,), (2,), (0,)]),
        (2, "2", [(0, 3), (2, 4), (0, 3)]),
        (4, "4", [(0, 1, 3, 4), (2, 3, 4, 5), (0, 1, 3, 4)]),
        (50, "50", [tuple(range(6)), (2, 3, 4, 5), tuple(range(6))]),
        ([5, 3], "frames", [(3, 5)] * 3),
        ({"v0": [5], "v2": [1, 4]}, "frames", [(5,), (2,), (1, 4)]),
    ],
)
def test_the_shards_hold_exactly_the_labels_that_were_asked_for(
    davis: DatasetFolder, tmp_path: Path, labels: Labels, kind: str, frames: list[tuple[int, ...]]
) -> None:
    out = tmp_path / "shards"
    index = pack(davis, out, labels=labels)
    assert [video.label_frames for video in index.videos] == frames
    assert index.labels == ShardIndex.load(out).labels == kind
    count = sum(map(len, frames))
    assert index.budget.labelled_frames == count
    assert sum(path.read_bytes().count(PNG) for path in out.iterdir()) == count
    for video in index.videos:
        stored = [row.frame for row in ShardReader(out).read(video.name, range(6)) if row.label is not None]
        assert tuple(stored) == video.label_frames
    assert verify(out) == []


def test_a_mask_without_objects_is_not_counted_as_a_label(davis: DatasetFolder, tmp_path: Path) -> None:
    import numpy as np

    empty = encode_mask(np.zeros((48, 80), np.uint8))
    for frame in (3, 4):
        (davis.root / f"Annotations/480p/v0/{frame:05d}.png").write_bytes(empty)
    index = pack(davis, tmp_path / "shards", labels=2)
    assert index.video("v0").label_frames == (0, 5), "the next mask with an object takes the place"
    with pytest.raises(DataError, match=r"00004\.png: the mask chosen as label shows no object"):
        pack(davis, tmp_path / "other", labels=[4])


@pytest.mark.parametrize("labels", [0, -1, True, [], [-1], {"v0": []}, "some", ["0"]])
def test_a_choice_of_nothing_is_refused(davis: DatasetFolder, tmp_path: Path, labels: Labels) -> None:
    with pytest.raises(ConfigError, match="labels = "):
        pack(davis, tmp_path / "shards", labels=labels)


def test_the_command_line_takes_numbers_lists_and_files(davis: DatasetFolder, tmp_path: Path) -> None:
    frames, out = tmp_path / "frames.json", tmp_path / "shards"
    frames.write_text(json.dumps({"v1": [5]}))
    for text, expected in (("2", (2, 4)), ("2,5", (2, 5)), (str(frames), (5,))):
        command = ["pack", "davis2017", "--root", str(davis.root), "--out", str(out), "--overwrite", "--labels", text]
        assert CliRunner().invoke(app, command).exit_code == 0
        assert ShardIndex.load(out).video("v1").label_frames == expected
    for text, problem in (("two", "neither"), (str(davis.root / "ImageSets/2017/train.txt"), "no frames by video")):
        command[-1] = text
        with pytest.raises(ConfigError, match=problem):
            CliRunner().invoke(app, command, catch_exceptions=False)
    frames.write_text(json.dumps({"v9": [5]}))
    command[-1] = str(frames)
    with pytest.raises(DataError, match="no video 'v9'"):
        CliRunner().invoke(app, command, catch_exceptions=False)
