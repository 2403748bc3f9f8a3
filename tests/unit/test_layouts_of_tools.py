"""What CVAT and Label Studio write of their own: every pixel comes back, and what a stranger wrote is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from davis_folder import FRAMES, HEIGHT, WIDTH
from PIL import Image

from ovos_ray.data.folders.drawn_masks import LayerMasks
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import DataError, OvosError
from ovos_ray.packing.pack import pack

META = (
    f"<meta><task><original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task></meta>"
    "<version>1.1</version>"
)


def shape(mask: np.ndarray, *, inside: str = "", **more: object) -> str:
    """A mask as CVAT writes it, by hand: runs along the rows of its box, background first."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    runs = [(value, len(list(group))) for value, group in itertools.groupby(part.reshape(-1).tolist())]
    lengths = [*([0] if runs[0][0] else []), *(length for _, length in runs)]
    given = {"rle": ", ".join(map(str, lengths)), "left": columns[0], "top": rows[0]}
    given |= {
        "width": part.shape[1],
        "height": part.shape[0],
        "z_order": 0,
        "label": "x & y".replace("&", "&amp;"),
        **more,
    }
    return "<mask " + " ".join(f'{key}="{value}"' for key, value in given.items()) + f">{inside}</mask>"


def write_xml(folder: Path, body: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{META}{body}</annotations>'
    )
    return folder


def image(name: str, shapes: str) -> str:
    return f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'


def _of_images(davis: DatasetFolder, root: Path) -> None:
    images = []
    for name in davis.video_names("train"):
        video = davis.video("train", name)
        shutil.copytree(video.location, root / "images" / name)
        for frame, path in enumerate(video.frames):
            mask = video.mask(frame)
            track = '<attribute name="track_id">{}</attribute>'
            shapes = "".join(shape(mask == own, inside=track.format(own)) for own in np.unique(mask) if own)
            images.append(
                f'<image id="{frame}" name="{name}/{path.name}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
            )
    write_xml(root, "".join(images[::-1]))


def _of_videos(davis: DatasetFolder, root: Path) -> None:
    for name in davis.video_names("train"):
        video, tracks = davis.video("train", name), ""
        (root / name / "images").mkdir(parents=True)
        for frame, path in enumerate(video.frames):
            shutil.copy(path, root / name / "images" / f"frame_{frame:06d}.jpg")
        for own in (1, 3):
            drawn = [(frame, video.mask(frame) == own) for frame in range(FRAMES)]
            shapes = "".join(shape(mask, frame=frame, outside=0) for frame, mask in drawn if mask.any())
            gone = shape(np.ones((2, 2), bool), frame=0, outside=1)
            tracks += f'<track id="{own}" label="x">{shapes}{gone}</track>'
        write_xml(root / name, tracks)


def _label_studio(davis: DatasetFolder, root: Path) -> None:
    tasks = []
    (root / "brush").mkdir(parents=True)
    for name in davis.video_names("train"):
        video = davis.video("train", name)
        shutil.copytree(video.location, root / "images" / name)
        for frame, path in enumerate(video.frames):
            mask, task = video.mask(frame), 100 + len(tasks)
            tasks.append({"id": task, "data": {"image": f"/data/local-files/?d=set%2F{name}/{path.name}"}})
            for own in np.unique(mask)[np.unique(mask) > 0]:
                file = f"task-{task}-annotation-{task + 7}-by-me@x.org-tag-a-b{own}-0.png"
                Image.fromarray(np.where(mask == own, np.uint8(255), np.uint8(0))).save(root / "brush" / file)
    (root / "project-1.json").write_text(json.dumps(tasks))


@pytest.mark.parametrize(
    ("layout", "write"), [("cvat-xml", _of_images), ("cvat-xml", _of_videos), ("label-studio", _label_studio)]
)
def test_every_pixel_comes_back(
    davis: DatasetFolder, tmp_path: Path, layout: str, write: Callable[[DatasetFolder, Path], None]
) -> None:
    write(davis, tmp_path / "export")
    found = open_dataset(tmp_path / "export", layout=layout)
    assert found.video_names("train") == davis.video_names("train")
    for name in davis.video_names("train"):
        there, here = davis.video("train", name), found.video("train", name)
        assert here.num_frames == FRAMES
        for frame in range(FRAMES):
            mask = there.mask(frame)
            expected = np.searchsorted([0, 1, 3], mask)  # ids from 1 in the order of the file's own
            if mask.any():
                np.testing.assert_array_equal(here.mask(frame), expected)
            else:
                assert frame not in here.masks
    shards = tmp_path / "shards"
    pack(found, shards, labels="all")
    assert not list(verify(shards))


def one_image(root: Path, shapes: str, name: str = "v/00000.jpg") -> DatasetFolder:
    (root / "images" / "v").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / "v" / "00000.jpg")
    write_xml(root, image(name, shapes))
    return open_dataset(root, layout="cvat-xml")


def test_what_lies_on_top_covers_and_the_parts_of_an_object_are_one(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    left, right = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    left[2:8, 2:8], right[2:8, 12:16] = True, True
    track = '<attribute name="track_id">{}</attribute>'
    outline = f'<polygon points="4,4;20,4;20,10;4,10" z_order="1">{track.format(1)}</polygon>'
    parts = [shape(part, inside=track.format(2), z_order=z) for part, z in ((left, 0), (right, 2))]
    mask = (
        one_image(tmp_path, outline + "".join(parts) + '<box xtl="0" ytl="0" xbr="9" ybr="9"/>')
        .video("train", "v")
        .mask(0)
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:8, 2:8] = 2
    expected[4:10, 4:20] = 1
    expected[2:8, 12:16] = 2  # the same object as on the left: its last part lifts it above the outline
    expected[2:8, 2:8] = 2
    np.testing.assert_array_equal(mask, expected)


def test_the_images_of_a_projects_subset_are_found(tmp_path: Path) -> None:
    one_image(tmp_path, shape(np.ones((4, 4), bool)))
    (tmp_path / "images" / "v").rename(tmp_path / "away")
    (tmp_path / "images" / "Train").mkdir()
    (tmp_path / "away").rename(tmp_path / "images" / "Train" / "v")
    video = open_dataset(tmp_path, layout="cvat-xml").video("train", "v")
    assert video.frames == (tmp_path / "images" / "Train" / "v" / "00000.jpg",)
    assert video.mask(0).sum() == 16


SMALL = np.eye(4, dtype=bool)
ENTITY = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations>&b;</annotations>'


@pytest.mark.parametrize(
    ("shapes", "name", "said"),
    [
        (shape(SMALL, left=WIDTH - 2), "v/00000.jpg", "run lengths of the box"),
        (shape(SMALL, rle="3, 999999999999999999999"), "v/00000.jpg", "run lengths of the box"),
        (shape(SMALL, rle="16, -1, 1"), "v/00000.jpg", "run lengths of the box"),
        (shape(SMALL, rle=""), "v/00000.jpg", "cannot be drawn"),
        (shape(SMALL, left="9" * 5000), "v/00000.jpg", "not a file of CVAT"),
        ('<polygon points="1,1;2"/>', "v/00000.jpg", "cannot be drawn|of fewer"),
        (shape(SMALL), "../../etc/00000.jpg", "leads|video"),
        ('<box xtl="1" ytl="1" xbr="2" ybr="2"/>', "v/00000.jpg", "only 1 of box"),
        ("<mask>", "v/00000.jpg", "not a file of CVAT"),
    ],
)
def test_what_cannot_be_is_a_named_error(tmp_path: Path, shapes: str, name: str, said: str) -> None:
    pytest.importorskip("pycocotools")
    found = one_image(tmp_path, shapes, name)
    with pytest.raises(DataError, match=said):
        found.video("train", found.video_names("train")[0]).mask(0)


def test_what_is_said_of_a_hidden_shape_is_said_of_no_other(tmp_path: Path) -> None:
    named = '<attribute name="track_id">{}</attribute>'
    shapes = [
        shape(SMALL, outside=1, inside=named.format(7)),
        shape(SMALL, inside=named.format(1)),
        shape(SMALL, left=9, inside=named.format(2)),
        shape(SMALL, left=9, outside=1, inside=named.format(1)),
    ]
    mask = one_image(tmp_path, "".join(shapes)).video("train", "v").mask(0)
    assert set(np.unique(mask)) == {0, 1, 2}


def test_more_objects_than_a_mask_can_tell_apart_are_a_named_error(tmp_path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "layer.png")
    with pytest.raises(DataError, match="254 in a video"):
        LayerMasks({0: {300: tmp_path / "layer.png"}})(0)


def test_entities_are_refused_before_they_are_read(tmp_path: Path) -> None:
    root = write_xml(tmp_path / "export", "")
    (root / "annotations.xml").write_text(ENTITY)
    with pytest.raises(DataError, match="declares a document type"):
        open_dataset(root, layout="cvat-xml").video_names("train")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": 8, "data": {"image": "/data/upload/1/0a1b2c3d-00000.jpg"}}, "no task 7"),
        ({"id": 7, "data": {"image": "/data/upload/1/99999.jpg"}}, "not among the frames"),
        ({"id": 7, "data": {"image": "/data/upload/1/00000.jpg"}}, "in several videos"),
        ({"id": 7, "data": {"text": "no image"}}, "not a JSON export"),
    ],
)
def test_a_mask_of_no_frame_is_a_named_error(tmp_path: Path, change: dict[str, object], said: str) -> None:
    for name in ("v", "w"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / name / "00000.jpg")
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "task-7-annotation-1-by-1-tag-dog-0.png")
    (tmp_path / "tasks.json").write_text(json.dumps([change]))
    with pytest.raises(OvosError, match=said):
        open_dataset(tmp_path, layout="label-studio").video("train", "v")


def test_an_upload_is_found_by_its_name_and_two_annotations_of_a_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "clip-1.jpg")
    (tmp_path / "tasks.json").write_text(
        json.dumps([{"id": 7, "data": {"image": "/data/upload/1/0a1b2c3d-clip-1.jpg"}}])
    )
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "task-7-annotation-1-by-1-tag-dog-0.png")
    video = open_dataset(tmp_path, layout="label-studio").video("train", tmp_path.name)
    assert video.mask(0).min() == 1
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "task-7-annotation-2-by-1-tag-dog-0.png")
    with pytest.raises(DataError, match="task 7 has annotation 1, too"):
        open_dataset(tmp_path, layout="label-studio").video("train", tmp_path.name)
