"""Masks as other programs write them: every pixel comes back, whatever holds it."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from davis_folder import FRAMES, HEIGHT, WIDTH
from PIL import Image
from typer.testing import CliRunner

from ovos_ray import networks
from ovos_ray.cli.app import app
from ovos_ray.config import EvaluationConfig
from ovos_ray.data.folders.drawn_masks import VOC_COLOURS, read_colours
from ovos_ray.data.folders.open import DatasetFolder, describe, open_dataset
from ovos_ray.data.masks import DAVIS_PALETTE, decode_mask
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import ConfigError, DataError, MissingExtraError
from ovos_ray.evaluate.evaluation import check_benchmarks, evaluate_network
from ovos_ray.evaluate.infer.convert import run_lengths
from ovos_ray.packing.pack import pack

coco_mask = pytest.importorskip("pycocotools.mask")
SIZE = [HEIGHT, WIDTH]


def _runs(mask: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def _long_runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths, by hand: down the columns, background first."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": SIZE, "counts": [*([0] if flat[0] else []), *lengths]}


def _objects(davis: DatasetFolder, name: str) -> Iterator[tuple[int, int, np.ndarray]]:
    video = davis.video("train", name)
    for frame in range(FRAMES):
        mask = video.mask(frame)
        yield from ((frame, int(own), mask == own) for own in np.unique(mask) if own)


def _youtube_vis(davis: DatasetFolder) -> dict[str, Any]:
    names = [f"v{number}" for number in range(3)]
    videos = [
        {"id": i, "height": HEIGHT, "width": WIDTH, "file_names": [f"{n}/{f:05d}.jpg" for f in range(FRAMES)]}
        for i, n in enumerate(names)
    ]
    annotations = []
    for i, name in enumerate(names):
        for own in (1, 3):
            drawn: list[Any] = [None] * FRAMES
            for frame, object_id, mask in _objects(davis, name):
                if object_id == own:
                    drawn[frame] = (_runs if frame % 2 else _long_runs)(mask)
            annotations.append({"id": 10 * i + own, "video_id": i, "category_id": 7, "segmentations": drawn})
    return {"videos": videos, "annotations": annotations[::-1], "categories": []}


def _coco(davis: DatasetFolder) -> dict[str, Any]:
    images, annotations = [], []
    for i in range(3):
        for frame in range(FRAMES):
            name = f"v{i}/{frame:05d}.jpg"
            images.append({"id": 100 * i + frame, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for frame, own, mask in _objects(davis, f"v{i}"):
            where = {"attributes": {"track_id": own}} if own == 1 else {"track_id": own}
            drawn = _runs(mask)
            if own == 1:  # a rectangle, whose outline covers the same pixels
                y, x = np.argwhere(mask).min(0).tolist()
                bottom, right = (np.argwhere(mask).max(0) + 1).tolist()
                drawn = [[x, y, right, y, right, bottom, x, bottom]]
            annotations.append({"image_id": 100 * i + frame, "segmentation": drawn, "iscrowd": 0, **where})
    return {"images": images[::-1], "annotations": annotations}


def _burst(davis: DatasetFolder) -> dict[str, Any]:
    sequences = []
    for i in range(3):
        frames: list[dict[str, Any]] = [{} for _ in range(FRAMES)]
        for frame, own, mask in _objects(davis, f"v{i}"):
            frames[frame][str(own)] = {"rle": _runs(mask)["counts"], "is_gt": True}
        paths = [f"{frame:05d}.jpg" for frame in range(FRAMES)]
        own_values = {"dataset": "480p", "seq_name": f"v{i}", "height": HEIGHT, "width": WIDTH}
        sequences.append({**own_values, "annotated_image_paths": paths, "segmentations": frames})
    return {"sequences": sequences, "split": "train"}


WRITERS = {
    "youtube-vis": (_youtube_vis, "train.json", "train/JPEGImages", ""),
    "coco": (_coco, "annotations/instances_train.json", "images", ""),
    "burst": (_burst, "annotations/train.json", "frames/train/480p", "480p/"),
}


def _write(davis: DatasetFolder, layout: str, root: Path) -> Path:
    write, file, frames, _ = WRITERS[layout]
    for part in (root / file, root / frames):
        part.parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(write(davis)))
    (root / frames).symlink_to(davis.root / "JPEGImages/480p")
    return root


@pytest.mark.parametrize("layout", WRITERS)
def test_every_pixel_comes_back_through_shards(davis: DatasetFolder, tmp_path: Path, layout: str) -> None:
    root = _write(davis, layout, tmp_path / layout)
    source = pickle.loads(pickle.dumps(open_dataset(root, "mine", layout)))
    out = tmp_path / "shards"
    index = pack(source, out, labels="all")
    assert verify(out) == []
    assert index.layout == layout
    prefix = WRITERS[layout][3]
    assert [video.name for video in index.videos] == [f"{prefix}v{number}" for number in range(3)]
    for video in index.videos:
        original = davis.video("train", video.name.removeprefix(prefix))
        for row in ShardReader(out).read(video.name, range(FRAMES)):
            expected = original.mask(row.frame)
            expected = np.where(expected == 3, 2, expected)  # objects are numbered from 1, in the order of their names
            assert (row.label is None) == (not expected.any())
            if row.label is not None:
                assert np.array_equal(decode_mask(row.label), expected)
            assert row.jpeg == original.frames[row.frame].read_bytes()
    assert pack(source, tmp_path / "first").budget.labelled_frames == 3


@pytest.mark.parametrize("layout", WRITERS)
def test_scores_are_those_of_the_same_masks_as_files(davis: DatasetFolder, tmp_path: Path, layout: str) -> None:
    root = _write(davis, layout, tmp_path / layout)
    for frame in (0, 1):  # DAVIS defines objects in the first annotated frame, and this one shows none
        (davis.root / f"Annotations/480p/v1/{frame:05d}.png").unlink()
    network = networks.build("stcn-tiny", seed=1)
    files = evaluate_network(network, root=str(davis.root), split="train").rows
    check_benchmarks(EvaluationConfig(root=str(root), layout=layout, split="train"))
    found = evaluate_network(network, root=str(root), layout=layout, split="train").rows
    expected = [(row.sequence, row.num_frames, row.j, row.f) for row in files if row.object_id in (1, 3)]
    assert [(row.sequence.removeprefix("480p/"), row.num_frames, row.j, row.f) for row in found] == expected
    other = evaluate_network(networks.build("stcn-tiny", seed=2), root=str(root), layout=layout, split="train").rows
    assert other != found, "the control"


@pytest.mark.parametrize("layout", WRITERS)
def test_what_is_converted_gives_back_every_pixel(davis: DatasetFolder, tmp_path: Path, layout: str) -> None:
    masks, root = davis.root / "Annotations", tmp_path / "converted"
    command = ["convert", str(masks), "--to", layout, "--out", str(root / "train.json")]
    assert "18 masks" in CliRunner().invoke(app, command, catch_exceptions=False).output
    (root / "images").symlink_to(davis.root / "JPEGImages")
    source = open_dataset(root, "mine", layout)
    for number in range(3):
        original, found = davis.video("train", f"v{number}"), source.video("train", f"480p/v{number}")
        for frame in found.masks:
            expected = original.mask(frame)
            assert np.array_equal(found.mask(frame), np.where(expected == 3, 2, expected))
        assert list(found.masks) == [frame for frame in range(FRAMES) if original.mask(frame).any()]
    mask = davis.video("train", "v0").mask(5) == 3
    mask[0, 0] = mask[-1, -1] = True  # runs that begin and end with an object, long and short ones in turn
    expected_runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert run_lengths(mask) == expected_runs
    before = (root / "train.json").read_bytes()
    with pytest.raises(ConfigError, match="exists, and is not replaced"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert (root / "train.json").read_bytes() == before
    with pytest.raises(ConfigError, match="no format 'xml'"):
        CliRunner().invoke(app, [*command[:3], "xml", *command[4:]], catch_exceptions=False)
    with pytest.raises(DataError, match="no masks"):
        CliRunner().invoke(app, ["convert", str(tmp_path / "none"), "--out", "x.json"], catch_exceptions=False)


def _painted(mask: np.ndarray, colours: dict[int, tuple[int, ...]]) -> Image.Image:
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    for own, colour in colours.items():
        pixels[mask == own] = colour
    return Image.fromarray(pixels)


def _paint(davis: DatasetFolder, folder: Path, colours: dict[int, tuple[int, ...]]) -> None:
    for number in range(3):
        (folder / f"v{number}").mkdir(parents=True)
        for frame in range(FRAMES):
            mask = davis.video("train", f"v{number}").mask(frame)
            _painted(mask, colours).save(folder / f"v{number}/{frame:05d}.png")


def test_painted_masks_are_read_by_a_table(davis: DatasetFolder, tmp_path: Path) -> None:
    root, table = tmp_path / "painted", tmp_path / "labelmap.txt"
    table.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\ndog:1,2,3::\n")
    assert read_colours(table) == {"#000000": 0, "#ff0000": 1, "#010203": 2}
    _paint(davis, root / "masks", {1: (255, 0, 0), 3: (1, 2, 3)})
    (root / "frames").symlink_to(davis.root / "JPEGImages/480p")
    command = ["pack", "mine", "--layout", "folder", "--root", str(root), "--out", str(tmp_path / "shards")]
    command += ["--labels", "all", "--colours", str(table)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert verify(tmp_path / "shards") == []
    for row in ShardReader(tmp_path / "shards").read("v2", range(FRAMES)):
        expected = davis.video("train", "v2").mask(row.frame)
        assert row.label is not None
        assert np.array_equal(decode_mask(row.label), np.where(expected == 3, 2, expected))
    table.write_text("cat:255,0,0\n")
    with pytest.raises(DataError, match=r"1 colours that the table does not have \(#010203\)"):
        CliRunner().invoke(app, [*command, "--overwrite"], catch_exceptions=False)
    table.write_text("cat:256,0,0\n")
    with pytest.raises(DataError, match="not a colour"):
        read_colours(table)


def test_cvat_masks_are_read_in_their_colours(davis: DatasetFolder, tmp_path: Path) -> None:
    root = tmp_path / "task"
    colours = {own: tuple(DAVIS_PALETTE[3 * own : 3 * own + 3]) for own in (1, 3)}
    _paint(davis, root / "SegmentationObject", colours)
    (root / "JPEGImages").symlink_to(davis.root / "JPEGImages/480p")
    source = open_dataset(root)
    assert source.layout == "cvat-masks"
    for number in range(3):
        original, found = davis.video("train", f"v{number}"), source.video("train", f"v{number}")
        assert all(np.array_equal(found.mask(frame), original.mask(frame)) for frame in range(FRAMES))
    assert VOC_COLOURS["#800000"] == 1


def test_void_alone_is_no_object_of_vost(davis: DatasetFolder, tmp_path: Path) -> None:
    root = tmp_path / "vost"
    for part in ("JPEGImages", "Annotations"):
        (root / part).parent.mkdir(exist_ok=True)
        (root / part).symlink_to(davis.root / part / "480p")
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("v0\nv1\n")
    void = np.zeros((HEIGHT, WIDTH), np.uint8)
    void[:9, :9] = 255
    Image.fromarray(void).save(davis.root / "Annotations/480p/v1/00000.png")
    assert open_dataset(root, "vost").video("train", "v1").first_label == 2
    assert open_dataset(root, "davis2017").video("train", "v1").first_label == 0, "as the one object of DAVIS 2016"


def test_mose_and_lvos_are_read_as_what_they_are_like() -> None:
    assert (describe("mose").layout, describe("mose").frame_interval, describe("mose").excluded) == (
        "youtube-vos",
        1,
        (),
    )
    assert describe("lvos").layout == "youtube-vos"
    assert describe("vost").layout == "vost"


def _drawn(mask: Any) -> Any:
    return lambda value: value["annotations"][0].update(segmentations=[mask] * FRAMES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_drawn({"size": SIZE, "counts": [7, 9]}), "drawn"),
        (_drawn({"size": SIZE, "counts": [-7, 7, HEIGHT * WIDTH]}), "drawn"),
        (_drawn({"size": [9, 9], "counts": [81]}), "run lengths"),
        (_drawn({"size": SIZE, "counts": "~~~~~~"}), "drawn"),
        (_drawn({"size": SIZE, "counts": "o" * 99}), "drawn"),
        (_drawn({"size": SIZE, "counts": "ö"}), "drawn"),
        (_drawn({"size": SIZE, "counts": [2**62] * 4 + [HEIGHT * WIDTH]}), "run lengths"),  # their sum is right
        (_drawn({"size": SIZE, "counts": [[7], [9]]}), "run lengths"),
        (_drawn([[1, float("nan"), 20, 3, 4, float("nan"), 7, 8]]), "through no place"),
        (_drawn([[0, 0, WIDTH, HEIGHT] * 50_000]), "without an end"),
        (_drawn([[1, 2, 3]]), "drawn"),
        (lambda value: value["videos"][0].update(height=float("inf")), "not a file of layout"),
        (lambda value: value["videos"][0].update(height=-HEIGHT, width=-WIDTH), "frame 0"),
        (
            lambda value: value["annotations"][0]["segmentations"].append(value["annotations"][0]["segmentations"][0]),
            "a mask of frame 6",
        ),
        (_drawn(["x"]), "drawn"),
        (_drawn(5), "drawn"),
        (lambda value: value["annotations"][0].update(video_id=99), "not a file of layout"),
        (lambda value: value["videos"][0].update(file_names=["../../v0/00000.jpg"]), "another folder"),
        (lambda value: value["videos"][0].update(file_names=["v0/77777.jpg"]), "missing frames"),
        (lambda value: value["videos"][0].update(height=2**20, width=2**20), "frame"),
        (lambda value: value.pop("videos"), "not a file of layout"),
    ],
)
def test_files_that_say_the_impossible_are_refused(
    davis: DatasetFolder, tmp_path: Path, change: Any, problem: str
) -> None:
    root = _write(davis, "youtube-vis", tmp_path / "vis")
    value = json.loads((root / "train.json").read_text())
    change(value)
    (root / "train.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=problem):
        pack(open_dataset(root, "mine", "youtube-vis"), tmp_path / "shards", labels="all")


def test_without_pycocotools_the_extra_is_named(
    davis: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _write(davis, "coco", tmp_path / "coco")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingExtraError, match="pycocotools") as error:
        open_dataset(root, "mine", "coco").video("train", "v0").mask(0)
    assert "ovos-ray[coco]" in (error.value.remedy or "")
