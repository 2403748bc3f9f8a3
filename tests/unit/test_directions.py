"""Predictions from any frame, both ways: what is predicted from what, on disk and through the verb."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovos_ray import networks
from ovos_ray.cli.predict import predict as predict_verb
from ovos_ray.data.folders.video import Video, read_video_file
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.directions import FrameStack, predict_both_ways
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor, predict_video
from ovos_ray.evaluate.infer.prediction import predict_one
from ovos_ray.evaluate.infer.video_jobs import VideoJob

SIZE, FRAMES = (32, 48), 9


def mask_of(*ids: int, shift: int = 0) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    for index in ids:
        mask[2 + 9 * index : 10 + 9 * index, 8 + shift : 30 + shift] = index
    return mask


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video file, the same frames as PNGs in `clip/`, and masks of frames 4 and 6."""
    import av

    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 256, (6, 14, 3)).astype(np.uint8)).resize((80, SIZE[0]), Image.BICUBIC)
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for t in range(FRAMES):
            picture = np.ascontiguousarray(np.asarray(wide)[:, 3 * t : 3 * t + SIZE[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "clip").mkdir()
    for t, frame in enumerate(read_video_file(tmp_path / "clip.mp4")):
        Image.fromarray(frame).save(tmp_path / f"clip/{t:05d}.png")
    Image.fromarray(mask_of(1)).save(tmp_path / "4.png")
    Image.fromarray(mask_of(1, 2, shift=5)).save(tmp_path / "6.png")
    return tmp_path


def masks_in(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def expected(network, frames, direction: str) -> list[np.ndarray]:
    """By forward predictions alone, of lists in whichever order."""
    one, two = mask_of(1), mask_of(1, 2, shift=5)
    if direction == "forward":
        return list(predict_video(network, frames, {4: one, 6: two}))
    empty = np.zeros(SIZE, np.uint8)
    if direction == "backward":
        return list(predict_video(network, frames[6::-1], {0: two, 2: one}))[::-1] + [empty] * 2
    before = list(predict_video(network, frames[4::-1], {0: one}))[:0:-1]
    return before + list(predict_video(network, frames[4:], {0: one, 2: two}))


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_a_walk_is_made_of_forward_predictions_for_files_and_folders(clip, direction):
    network = networks.build("xmem-tiny", seed=1)
    frames = list(read_video_file(clip / "clip.mp4"))
    wanted = expected(network, frames, direction)
    masks = {4: clip / "4.png", 6: clip / "6.png"}
    folder = Video("folder", tuple(sorted((clip / "clip").iterdir())), None, masks, given="all")
    file = Video("file", (), clip / "clip.mp4", masks, given="all")
    for video in (folder, file):
        overlay = clip / f"{video.name}.mp4"
        job = VideoJob(video, clip / "out", soft=clip / "soft", overlay=overlay, direction=direction)
        predictor = NetworkPredictor(network, InferenceSettings.of(network), soft=True)
        assert predict_one(predictor, job).num_frames == FRAMES
        found = masks_in(clip / "out" / video.name)
        assert len(found) == FRAMES
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(list((clip / "soft" / video.name).iterdir())) == FRAMES
        tinted = [np.abs(a.astype(int) - b).mean() for a, b in zip(read_video_file(overlay), frames, strict=True)]
        with_objects = np.array([mask.any() for mask in wanted])
        assert min(np.array(tinted)[with_objects]) > max([0.0, *np.array(tinted)[~with_objects]])
    assert [mask.any() for mask in wanted] == {
        "forward": [False] * 4 + [True] * 5, "backward": [True] * 7 + [False] * 2, "both": [True] * 9
    }[direction]  # fmt: skip
    assert (wanted[6] == 2).any(), "a new object enters"
    assert direction == "backward" or not any((mask == 2).any() for mask in wanted[:6])


def test_both_ways_from_the_first_frame_is_forward(clip):
    video = Video("file", (), clip / "clip.mp4", {0: clip / "4.png"}, given="all")
    assert predict_one(copy_first_mask, VideoJob(video, clip / "out", direction="both")).num_frames == FRAMES
    assert all(np.array_equal(mask, mask_of(1)) for mask in masks_in(clip / "out/file"))


@pytest.mark.parametrize("first", [0, 4])
def test_frames_of_any_source_are_predicted_both_ways_in_their_order(clip, first):
    network = networks.build("stcn-tiny", seed=1)
    frames = list(read_video_file(clip / "clip.mp4"))
    predictor = NetworkPredictor(network, InferenceSettings.of(network))
    masks = {first: mask_of(1), 6: mask_of(1, 2, shift=5)}
    found = list(predict_both_ways(predictor, iter(frames), masks))
    wanted = expected(network, frames, "both") if first else list(predict_video(network, frames, masks))
    assert len(found) == FRAMES
    assert all(map(np.array_equal, found, wanted))
    for number in (2, 5):
        with pytest.raises(DataError, match=f"mask of frame {max(first, 6) if number > first else first}"):
            list(predict_both_ways(predictor, iter(frames[:number]), masks))


def predict(folder: Path, frames: str, *masks: str, out: str = "out", **options) -> Path:
    predict_verb(folder / out, baseline="colour", frames=folder / frames, mask=list(masks), **options)
    return folder / out / "clip"


def test_the_verb_goes_both_ways_from_a_later_mask_and_does_again_what_another_direction_left(clip, monkeypatch):
    monkeypatch.chdir(clip)
    out = predict(clip, "clip.mp4", "4=4.png")
    both = masks_in(out)
    assert len(both) == FRAMES
    assert all(mask.any() for mask in both)
    stamp = (out / "00000.png").stat().st_mtime_ns
    predict(clip, "clip.mp4", "4=4.png")
    assert (out / "00000.png").stat().st_mtime_ns == stamp, "there already"
    predict(clip, "clip.mp4", "4=4.png", direction="forward")
    assert [mask.any() for mask in masks_in(out)] == [False] * 4 + [True] * 5
    by_name = masks_in(predict(clip, "clip", "00004=4.png", out="named"))
    assert all(map(np.array_equal, by_name, both))
    note = (clip / "out/.ovos-ray/predictions/clip.txt").read_text()
    predict(clip, "clip.mp4", "0=4.png", out="first", direction="both")
    assert "both" not in (clip / "first/.ovos-ray/predictions/clip.txt").read_text() + note, "that is forward"


def test_masks_that_cannot_be_are_refused_before_anything_appears(clip, monkeypatch):
    monkeypatch.chdir(clip)
    with pytest.raises(DataError, match=r"mask of frame 12, but the video has 9 frames"):
        predict(clip, "clip.mp4", "12=4.png")
    with pytest.raises(DataError, match=r"mask of frame 12, but the video has 9 frames"):
        predict(clip, "clip.mp4", "4=4.png", "12=4.png")
    with pytest.raises(DataError, match=r"no frame '12'"):
        predict(clip, "clip", "12=4.png")
    with pytest.raises(ConfigError, match="frame 4 has a mask already"):
        predict(clip, "clip", "4=4.png", "00004=6.png")
    with pytest.raises(ConfigError, match="--direction sideways"):
        predict(clip, "clip", "4.png", direction="sideways")
    assert not (clip / "out/clip").exists()


def test_a_stack_keeps_pictures_on_disk_without_loss_and_without_a_name(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, shape).astype(np.uint8) for shape in [(7, 9, 3), (5, 4), (8, 8, 3)]]
    with FrameStack(tmp_path) as stack:
        for picture in pictures:
            stack.append(picture)
        for place in itertools.chain((2, 0, 1), (0,)):
            np.testing.assert_array_equal(stack[place], pictures[place])
        assert len(stack) == 3
        assert not list(tmp_path.iterdir())
        stack.clear()
        stack.append(pictures[1])
        np.testing.assert_array_equal(stack[0], pictures[1])
