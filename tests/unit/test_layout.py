from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import encode_mask
from ovos_ray.errors import DataError, MissingExtraError

HEIGHT, WIDTH = 12, 20


def _frame(path: Path, value: int = 100, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def _mask(path: Path, ids: tuple[int, ...] = (1,), size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """A mask with a 2 x 2 square per id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    for position, object_id in enumerate(ids):
        mask[2:4, 3 * position : 3 * position + 2] = object_id
    path.write_bytes(encode_mask(mask))


def _davis(root: Path, videos: dict[str, int], lists: dict[str, str], ids: tuple[int, ...] = (1, 2)) -> Path:
    for name, num_frames in videos.items():
        for index in range(num_frames):
            _frame(root / "JPEGImages/480p" / name / f"{index:05d}.jpg")
            _mask(root / "Annotations/480p" / name / f"{index:05d}.png", ids)
    for path, text in lists.items():
        (root / "ImageSets" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / path).write_text(text)
    return root


def test_davis_2017_is_recognised_from_its_parent_and_from_its_parts(tmp_path: Path) -> None:
    root = _davis(tmp_path / "DAVIS/2017/trainval", {"bear": 3, "dog": 2}, {"2017/train.txt": "dog\nbear\n"})
    _davis(tmp_path / "DAVIS/2017/test-dev", {"cat": 2}, {"2017/test-dev.txt": "cat\n"})
    for place in (tmp_path, root, root / "JPEGImages", root / "JPEGImages" / "480p"):
        folder = open_dataset(place)
        assert folder.root == root if place != tmp_path else folder.root.parent == root.parent
        assert set(folder.splits) == {"train", "test-dev"}
        assert folder.video_names("train") == ("bear", "dog")
        assert folder.video_names("test-dev") == ("cat",)
    video = folder.video("train", "bear")
    assert video.frame_names == ("00000", "00001", "00002")
    assert video.num_frames == 3
    assert video.size == (HEIGHT, WIDTH)
    assert set(np.unique(video.mask(1))) == {0, 1, 2}
    assert list(video.references()) == [0]
    assert video.is_saved("00002")
    assert sum(1 for _ in video.images()) == 3


def test_splits_of_an_unrelated_neighbour_are_not_taken(tmp_path: Path) -> None:
    root = _davis(tmp_path / "mine", {"a": 2}, {"2017/train.txt": "a\n"})
    _davis(tmp_path / "other", {"b": 2}, {"2017/val.txt": "b\n"})
    assert open_dataset(root, "davis2017").splits == ("train",)


@pytest.mark.parametrize("text", ["bear\n", "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n" * 2])
def test_davis_2016_lists_hold_names_or_path_pairs_and_all_objects_are_one(tmp_path: Path, text: str) -> None:
    root = _davis(tmp_path, {"bear": 2}, {"480p/train.txt": text}, ids=(1, 2))
    folder = open_dataset(root)
    assert folder.description.layout == "davis2016"
    assert folder.video_names("train") == ("bear",)
    assert set(np.unique(folder.video("train", "bear").mask(0))) == {0, 1}


def _youtube(root: Path) -> Path:
    for index in (0, 5, 10):
        _frame(root / f"train/JPEGImages/v1/{index:05d}.jpg")
        _mask(root / f"train/Annotations/v1/{index:05d}.png", () if index == 0 else (1,))
        _frame(root / f"train/JPEGImages/01e64dd36a/{index:05d}.jpg")
        _mask(root / f"train/Annotations/01e64dd36a/{index:05d}.png")
        _frame(root / f"valid/JPEGImages/w/{index:05d}.jpg")
    for index in range(11):
        _frame(root / f"all_frames/valid_all_frames/JPEGImages/w/{index:05d}.jpg")
    _mask(root / "valid/Annotations/w/00000.png", (1,))
    _mask(root / "valid/Annotations/w/00005.png", (1, 3))
    objects = {"1": {"frames": ["00000", "00005", "00010"]}, "3": {"frames": ["00005", "00010"]}}
    (root / "valid/meta.json").write_text(json.dumps({"videos": {"w": {"objects": objects}}}))
    return root


def test_youtube_vos_leaves_out_erroneous_videos_and_starts_where_an_object_shows(tmp_path: Path) -> None:
    _youtube(tmp_path / "YouTube")
    folder = open_dataset(tmp_path, "youtube_vos2019")
    assert folder.splits == ("train", "valid")
    assert folder.video_names("train") == ("v1",)
    assert folder.frame_interval("train") == 5
    video = folder.video("train", "v1")
    assert video.frame_names == ("00000", "00005", "00010")
    assert video.first_label == 1
    assert open_dataset(tmp_path / "YouTube" / "train").root == tmp_path / "YouTube"


def test_youtube_vos_validation_gives_late_objects_and_the_frames_to_save(tmp_path: Path) -> None:
    folder = open_dataset(_youtube(tmp_path), "youtube_vos2019")
    assert folder.video_names("val") == folder.video_names("valid") == ("w",)
    assert folder.frame_interval("valid") == 1
    video = folder.video("val", "w")
    assert video.num_frames == 11
    references = video.references()
    assert list(references) == [0, 5]
    assert set(np.unique(references[0])) == {0, 1}
    assert set(np.unique(references[5])) == {0, 3}, "object 1 was given before"
    assert [name for name in video.frame_names if video.is_saved(name)] == ["00000", "00005", "00010"]


def test_without_all_frames_validation_reads_every_fifth(tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(_youtube(tmp_path) / "all_frames")
    folder = open_dataset(tmp_path, "youtube_vos2018")
    assert folder.video("valid", "w").frame_names == ("00000", "00005", "00010")
    assert folder.frame_interval("valid") == 5


@pytest.mark.parametrize("dataset", ["auto", "youtube-vos"])
def test_the_youtube_vos_layout_knows_its_interval_and_erroneous_videos(tmp_path: Path, dataset: str) -> None:
    folder = open_dataset(_youtube(tmp_path / "YouTube"), dataset)
    assert folder.frame_interval("train") == 5
    assert folder.frame_interval("valid") == 1, "all frames of it are there"
    assert folder.video_names("train") == ("v1",)


def test_all_training_frames_of_youtube_vos_are_a_split_of_their_own(tmp_path: Path) -> None:
    root = _youtube(tmp_path / "YouTube")
    for index in range(11):
        _frame(root / f"all_frames/train_all_frames/JPEGImages/v1/{index:05d}.jpg")
    folder = open_dataset(root, "youtube_vos2019")
    assert folder.splits == ("train", "valid", "train_all_frames")
    assert folder.frame_interval("train") == 5
    assert folder.video("train", "v1").num_frames == 3, "the published training split stays what it is"
    video = folder.video("train_all_frames", "v1")
    assert folder.frame_interval("train_all_frames") == 1
    assert folder.video_names("train_all_frames") == ("v1",)
    assert (video.num_frames, list(video.masks), video.first_label) == (11, [0, 5, 10], 5)


def test_static_images_are_videos_of_one_frame_with_thresholded_masks(tmp_path: Path) -> None:
    for name in ("DUTS-TR/a.b", "DUTS-TR/c", "fss/class1/1"):
        _frame(tmp_path / f"{name}.jpg")
        Image.fromarray(np.full((HEIGHT, WIDTH), 200, np.uint8)).save(tmp_path / f"{name}.png")
    folder = open_dataset(tmp_path)
    assert folder.description.layout == "static"
    assert folder.splits == ("train", "DUTS-TR", "fss")
    assert folder.video_names("train") == ("DUTS-TR/a.b", "DUTS-TR/c", "fss/class1/1")
    assert folder.video_names("fss") == ("fss/class1/1",)
    video = folder.video("train", "DUTS-TR/a.b")
    assert video.num_frames == 1
    assert (video.mask(0) == 1).all()
    (tmp_path / "DUTS-TR/c.png").unlink()
    with pytest.raises(DataError, match=r"c\.jpg: no mask c\.png"):
        open_dataset(tmp_path, "static").video_names("train")


@pytest.mark.parametrize(
    ("mask", "frame"),
    [("NAME.png", 0), ("masks/NAME.png", 0), ("NAME/mask.png", 0), ("masks/NAME/f2.png", 1), ("NAME/f10.png", 2)],
)
def test_a_plain_folder_takes_the_mask_from_each_documented_place(tmp_path: Path, mask: str, frame: int) -> None:
    for index in (1, 2, 10):
        _frame(tmp_path / f"kitten/f{index}.jpg")
    _mask(tmp_path / mask.replace("NAME", "kitten"))
    folder = open_dataset(tmp_path, layout="folder")
    assert folder.splits == ("train",)
    video = folder.video("train", "kitten")
    assert video.frame_names == ("f1", "f2", "f10"), "f2 comes before f10"
    assert video.first_label == frame


def test_a_plain_folder_has_subfolders_and_lists(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(2):
            _frame(tmp_path / f"videos/{name}/{index}.png")
        _mask(tmp_path / f"masks/{name}.png")
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "val.txt").write_text("b\n")
    folder = open_dataset(tmp_path, "folder")
    assert folder.splits == ("train", "val")
    assert folder.video_names("val") == ("b",)
    assert folder.video("val", "b").first_label == 0


def test_a_plain_folder_without_masks_says_what_it_expects(tmp_path: Path) -> None:
    _frame(tmp_path / "kitten/1.jpg")
    with pytest.raises(DataError, match="no mask for video 'kitten'") as error:
        open_dataset(tmp_path, layout="folder").video("train", "kitten")
    assert "NAME.png" in (error.value.remedy or "")
    _mask(tmp_path / "kitten.png")
    _mask(tmp_path / "masks/kitten/1.png")
    with pytest.raises(DataError, match="masks in two places"):
        open_dataset(tmp_path, layout="folder").video("train", "kitten")


def _video_file(path: Path, num_frames: int = 4) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(num_frames):
            image = np.full((48, 64, 3), 40 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_video_files_are_read_frame_by_frame(tmp_path: Path) -> None:
    _video_file(tmp_path / "clip.mp4")
    _mask(tmp_path / "masks/clip/00002.png", size=(48, 64))
    video = open_dataset(tmp_path).video("train", "clip")
    assert video.frame_names == ("00000", "00001", "00002", "00003")
    assert video.size == (48, 64)
    assert video.first_label == 2
    levels = [image.mean() for image in video.images()]
    assert np.allclose(levels, [0, 40, 80, 120], atol=6)


def test_a_damaged_video_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    _mask(tmp_path / "clip.png")
    with pytest.raises(DataError, match=r"clip\.mp4: cannot be decoded"):
        _ = open_dataset(tmp_path).video("train", "clip").num_frames


def test_video_files_without_pyav_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    _mask(tmp_path / "clip.png")
    with pytest.raises(MissingExtraError, match=r"ovos-ray\[video\]"):
        _ = open_dataset(tmp_path).video("train", "clip").num_frames


def test_missing_folders_splits_and_videos_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such folder"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match="no dataset of layout davis2017"):
        open_dataset(tmp_path, "davis2017")
    with pytest.raises(DataError, match="no dataset of layout"):
        open_dataset(tmp_path)
    root = _davis(tmp_path, {"bear": 2}, {"2017/train.txt": "bear\nlost\n", "2017/empty.txt": "\n"})
    folder = open_dataset(root)
    with pytest.raises(DataError, match="no split 'test'; there are: empty, train"):
        folder.video_names("test")
    with pytest.raises(DataError, match="split 'empty' is empty"):
        folder.video_names("empty")
    with pytest.raises(DataError, match="no video 'cow'"):
        folder.video("train", "cow")
    with pytest.raises(DataError, match="missing frames of video 'lost'"):
        folder.video("train", "lost")


def test_a_mask_of_another_size_names_both_files(tmp_path: Path) -> None:
    root = _davis(tmp_path, {"bear": 2}, {"2017/train.txt": "bear\n"})
    _mask(root / "Annotations/480p/bear/00000.png", size=(10, 10))
    with pytest.raises(DataError, match=r"mask of 10 x 10 pixels for a frame of 20 x 12") as error:
        _ = open_dataset(root).video("train", "bear").first_label
    assert "bear/00000.png" in error.value.message
    assert "bear/00000.jpg" in error.value.message
    assert "nearest" in (error.value.remedy or "")


def test_a_mask_without_its_frame_is_named(tmp_path: Path) -> None:
    root = _davis(tmp_path, {"bear": 3}, {"2017/train.txt": "bear\n"})
    (root / "JPEGImages/480p/bear/00001.jpg").unlink()
    with pytest.raises(DataError, match=r"bear/00001\.png: mask of a frame that is missing"):
        open_dataset(root).video("train", "bear")


def test_a_video_whose_masks_show_nothing_is_named(tmp_path: Path) -> None:
    root = _davis(tmp_path, {"bear": 2}, {"2017/train.txt": "bear\n"}, ids=())
    with pytest.raises(DataError, match="no object in any of its masks") as error:
        open_dataset(root).video("train", "bear").references()
    assert "exclude" in (error.value.remedy or "")


@pytest.mark.shared
def test_the_real_sequences_are_recognised(shared_root: Path) -> None:
    folder = open_dataset(shared_root / "davis-mini")
    assert folder.description.layout == "davis2016"
    assert [len(folder.video_names(split)) for split in ("train", "val")] == [12, 4]
    goat = folder.video("val", "goat")
    assert (goat.num_frames, goat.size, goat.first_label) == (90, (480, 854), 0)
    assert set(np.unique(goat.mask(0))) == {0, 1}


def test_a_given_layout_needs_no_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _davis(tmp_path / "farm", {"cow": 2}, {"2017/train.txt": "cow\n"})
    folder = open_dataset(root, "my-farm", layout="davis2017")
    assert (folder.description.name, folder.description.layout) == ("my-farm", "davis2017")
    with pytest.raises(DataError, match="no dataset 'my-farm'"):
        open_dataset(root, "my-farm")
    monkeypatch.chdir(root)
    assert open_dataset(".").description.name == "farm"
