"""Predictions on disk: layout, palettes, resuming, and what is refused."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import wait_for

from ovos_ray import networks
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import DataError, EvaluationError
from ovos_ray.evaluate.evaluation import evaluate_network
from ovos_ray.evaluate.infer.background import ReadAhead
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor, predict_video
from ovos_ray.evaluate.infer.prediction import predict_dataset, predict_one
from ovos_ray.evaluate.infer.video_jobs import VideoJob, plan_jobs

SIZE = (32, 48)
PALETTE = [c for i in range(256) for c in ((40 * i) % 256, 255 - i, i)]


def write_video(images: Path, annotations: Path, name: str, num_frames: int, labelled: dict[int, np.ndarray]) -> None:
    rng = np.random.default_rng(len(name))
    (images / name).mkdir(parents=True)
    (annotations / name).mkdir(parents=True)
    for t in range(num_frames):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)).save(images / name / f"{t:05d}.jpg")
        if t in labelled:
            mask = Image.fromarray(labelled[t])
            mask.putpalette(PALETTE)
            mask.save(annotations / name / f"{t:05d}.png")


def mask_of(t: int = 0) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[4:16, 4 + t : 16 + t] = 1
    mask[18:30, 30 - t : 44 - t] = 2
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A DAVIS 2017 tree of two videos."""
    root = tmp_path / "DAVIS"
    for name in ("bear", "swan"):
        write_video(root / "JPEGImages/480p", root / "Annotations/480p", name, 7, {t: mask_of(t) for t in range(7)})
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\nswan\n")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_davis_results_layout_with_the_first_masks_palette(root, tmp_path):
    folder, out = open_dataset(root), tmp_path / "out"
    network = networks.build("xmem-tiny")
    reports = predict_dataset(network, folder, "val", out)
    assert [(r.name, r.num_frames, r.skipped) for r in reports] == [("bear", 7, False), ("swan", 7, False)]
    assert sorted(contents(out)) == [f"{name}/{t:05d}.png" for name in ("bear", "swan") for t in range(7)]
    image = Image.open(out / "bear/00003.png")
    assert (image.mode, image.size) == ("P", SIZE[::-1])
    assert image.getpalette()[:9] == PALETTE[:9]
    np.testing.assert_array_equal(np.asarray(Image.open(out / "swan/00000.png")), mask_of())
    expected = list(predict_video(network, folder.video("val", "swan").images(), {0: mask_of()}))
    for t in range(7):
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"swan/{t:05d}.png")), expected[t])


def test_finished_videos_are_skipped_and_half_written_ones_redone(root, tmp_path):
    folder, out = open_dataset(root), tmp_path / "out"
    predict_dataset(copy_first_mask, folder, "val", out)
    whole = contents(out)
    stamp = (out / "bear/00002.png").stat().st_mtime_ns
    (out / "swan/00004.png").unlink()  # as if somebody had removed it
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from ovos_ray.evaluate.infer.background import written_behind\n"
        "with written_behind(Path(sys.argv[1]), 'predictions', Path(sys.argv[2]), '') as write:\n"
        "    write('00000.png', lambda: b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, out / "swan", out / ".ovos-ray/predictions/swan.txt"])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(out.glob(".swan.*.partial"))) == 1
    reports = predict_dataset(copy_first_mask, folder, "val", out)
    assert [r.skipped for r in reports] == [True, False]
    assert contents(out) == whole
    assert (out / "bear/00002.png").stat().st_mtime_ns == stamp
    assert sorted(p.name for p in out.iterdir()) == [".ovos-ray", ".predictions.json", "bear", "swan"]


def test_a_failing_video_leaves_nothing_behind(root, tmp_path):
    broken = root / "JPEGImages/480p/swan/00004.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"00004\.jpg"):
        predict_dataset(copy_first_mask, open_dataset(root), "val", out, overlay=tmp_path / "overlays")
    assert sorted(p.name for p in out.iterdir()) == [".ovos-ray", ".predictions.json", "bear"]
    assert sorted(p.name for p in (tmp_path / "overlays").iterdir()) == ["bear.mp4"]


def test_predictions_of_other_weights_are_not_mixed(root, tmp_path):
    folder, out = open_dataset(root), tmp_path / "out"
    predict_dataset(networks.build("stcn-tiny", seed=1), folder, "val", out, videos=["bear"])
    with pytest.raises(EvaluationError, match="other weights or settings"):
        predict_dataset(networks.build("stcn-tiny", seed=2), folder, "val", out)
    settings = InferenceSettings.of(networks.build("stcn-tiny"), memory_interval=2)
    with pytest.raises(EvaluationError, match="other weights or settings"):
        predict_dataset(networks.build("stcn-tiny", seed=1), folder, "val", out, settings=settings)
    before = contents(out)
    network = networks.build("stcn-tiny", seed=3)
    assert not predict_dataset(network, folder, "val", out, overwrite=True)[0].skipped
    assert contents(out).keys() == before.keys() | {f"swan/{t:05d}.png" for t in range(7)}
    assert predict_dataset(network, folder, "val", out)[0].skipped


def test_jobs_travel_to_other_processes(root, tmp_path):
    import pickle

    network = networks.build("cutie-tiny")
    predictor = NetworkPredictor(network, InferenceSettings.of(network))
    (job, _) = plan_jobs(open_dataset(root), "val", tmp_path / "out", "origin")
    predictor, job = pickle.loads(pickle.dumps((predictor, job)))
    assert predict_one(predictor, job).num_frames == 7
    assert job.finished


def test_soft_masks_and_overlays(root, tmp_path):
    import av

    folder = open_dataset(root)
    predict_dataset(
        networks.build("stcn-tiny"), folder, "val", tmp_path / "out",
        videos=["bear"], soft=tmp_path / "soft", overlay=tmp_path / "overlays",
    )  # fmt: skip
    with np.load(tmp_path / "soft/bear/00005.npz") as soft:
        assert soft["probabilities"].dtype == np.uint8
        assert soft["probabilities"].shape == (3, *SIZE)
        assert soft["ids"].tolist() == [1, 2]
        probabilities = soft["probabilities"].astype(int)
    hard = np.asarray(Image.open(tmp_path / "out/bear/00005.png"))
    of_the_mask = np.take_along_axis(probabilities, hard[None].astype(int), 0)[0]
    assert (of_the_mask == probabilities.max(0)).all()
    with av.open(str(tmp_path / "overlays/bear.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 7
    assert frames[0].shape == (*SIZE, 3)
    with pytest.raises(EvaluationError, match="soft masks"):
        predict_dataset(copy_first_mask, folder, "val", tmp_path / "copy", soft=tmp_path / "soft2")


def test_video_files_are_predicted_frame_by_frame(tmp_path):
    import av

    from ovos_ray.data.folders.video import Video

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for t in range(5):
            picture = np.full((*SIZE, 3), 40 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    Image.fromarray(mask_of()).save(tmp_path / "first.png")
    job = VideoJob(Video("clip", (), tmp_path / "clip.mp4", {0: tmp_path / "first.png"}), tmp_path / "out")
    network = networks.build("xmem-tiny")
    report = predict_one(NetworkPredictor(network, InferenceSettings.of(network)), job)
    assert (report.num_frames, job.finished) == (5, True)
    assert sorted(contents(tmp_path / "out")) == [f"clip/{t:05d}.png" for t in range(5)]


def test_video_files_are_read_upright(tmp_path):
    import av

    from ovos_ray.data.folders.video import read_video_file

    stored = np.zeros((*SIZE, 3), np.uint8)
    stored[:16, :24] = 200  # the upper left quarter
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray((tmp_path / "clip.mp4").read_bytes())
    # The track header's matrix, 16.16 fixed point, as phones held upright write it: (x, y) is shown at (-y, x).
    matrix = data.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">9i", data, matrix) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "clip.mp4").write_bytes(data)
    (shown,) = read_video_file(tmp_path / "clip.mp4")
    assert shown.shape == (*SIZE[::-1], 3)
    bright = shown.mean(2) > 100
    assert bright[:24, 16:].mean() > 0.95  # the upper right quarter
    assert bright.mean() < 0.27


def test_youtube_vos_saves_the_listed_frames_and_meets_later_objects(tmp_path):
    root = tmp_path / "YouTube"
    first = np.where(mask_of() == 1, 2, 0).astype(np.uint8)
    later = np.where(mask_of() == 2, 7, 0).astype(np.uint8)
    write_video(root / "valid_all_frames/JPEGImages", root / "valid/Annotations", "vid", 12, {0: first, 5: later})
    (root / "valid/JPEGImages").mkdir()
    objects = {"2": {"category": "x", "frames": ["00000", "00005", "00010"]}, "7": {"frames": ["00005", "00010"]}}
    (root / "valid/meta.json").write_text(json.dumps({"videos": {"vid": {"objects": objects}}}))
    predict_dataset(copy_first_mask, open_dataset(root), "valid", tmp_path / "out")
    masks = {p.stem: np.asarray(Image.open(p)) for p in (tmp_path / "out/vid").iterdir()}
    assert sorted(masks) == ["00000", "00005", "00010"]
    np.testing.assert_array_equal(masks["00000"], first)
    np.testing.assert_array_equal(masks["00010"], np.maximum(first, later))


def test_evaluate_network_predicts_scores_and_restores_the_mode(root, tmp_path):
    network = networks.build("stcn-tiny").train()
    table = evaluate_network(network, root=str(root), split="val")
    assert network.training
    assert [(r.sequence, r.object_id) for r in table.rows] == [("bear", 1), ("bear", 2), ("swan", 1), ("swan", 2)]
    assert len(evaluate_network(network, root=str(root), split="val", num_videos=1).rows) == 2


def test_reading_ahead_keeps_order_passes_errors_and_stops():
    with ReadAhead(range(100), depth=3) as items:
        assert list(items) == list(range(100))

    def failing():
        yield 1
        raise DataError("broken frame")

    with ReadAhead(failing()) as items:
        assert next(items) == 1
        with pytest.raises(DataError, match="broken frame"):
            next(items)

    taken = []
    with ReadAhead((taken.append(i) for i in range(10**6)), depth=3) as items:
        next(items)
        wait_for(lambda: len(taken) >= 4, 20)
    assert len(taken) == 4, "three ahead of the one that was asked for"
