"""`ovos-ray predict` as a user meets it: its options, and what it refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ovos_ray import networks
from ovos_ray.cli.predict import predict as predict_verb
from ovos_ray.data.masks import encode_jpeg, encode_mask
from ovos_ray.errors import ConfigError, DataError, EvaluationError, ResourceError
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor
from ovos_ray.on_ray.predict import predict_in_parallel
from ovos_ray.train.load_network import load_network

SIZE = (48, 64)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of five frames of noise, with `mask.png` and `weights.pt` beside it."""
    rng = np.random.default_rng(0)
    (tmp_path / "clip").mkdir()
    for t in range(5):
        frame = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        (tmp_path / f"clip/{t:05d}.jpg").write_bytes(encode_jpeg(frame))
    write_mask(tmp_path, slice(8, 30))
    save_weights(tmp_path, seed=2)
    return tmp_path / "clip"


def write_mask(folder: Path, rows: slice) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, 10:40] = 17
    mask[40:, 30:60] = 200
    (folder / "mask.png").write_bytes(encode_mask(mask))


def save_weights(folder: Path, seed: int) -> None:
    network = networks.build("stcn-tiny", seed=seed)
    torch.save({"network_name": "stcn-tiny", "network": network.state_dict()}, folder / "weights.pt")


def predict(clip: Path, **changes: Any) -> Path:
    folder = clip.parent
    arguments = {"checkpoint": folder / "weights.pt", "frames": clip, "mask": [str(folder / "mask.png")]}
    predict_verb(folder / "out", **arguments | changes)
    return folder / "out/clip"


def test_options_reach_the_network(clip):
    soft = clip.parent / "soft"
    out = predict(clip, soft=soft, flip=True, scales="1,1.5", precision="bfloat16", shortest_side=32)
    network = load_network(clip.parent / "weights.pt")
    settings = InferenceSettings.of(network, flip=True, scales=(1.0, 1.5), precision="bfloat16", shortest_side=32)
    frames = [np.asarray(Image.open(path)) for path in sorted(clip.iterdir())]
    expected = NetworkPredictor(network, settings, soft=True)(frames, {0: np.asarray(Image.open(clip / "../mask.png"))})
    for t, one in enumerate(expected):
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"{t:05d}.png")), one.mask)
        with np.load(soft / f"clip/{t:05d}.npz") as stored:
            assert stored["ids"].tolist() == [17, 200]
            assert stored["probabilities"].dtype == np.uint8
            np.testing.assert_allclose(stored["probabilities"] / 255, one.probabilities, atol=0.002)


def test_another_mask_is_predicted_anew_and_other_weights_are_refused(clip):
    first = (predict(clip) / "00004.png").read_bytes()
    stamp = (clip.parent / "out/clip/00004.png").stat().st_mtime_ns
    predict(clip)
    assert (clip.parent / "out/clip/00004.png").stat().st_mtime_ns == stamp
    write_mask(clip.parent, slice(20, 45))
    out = predict(clip)
    assert (out / "00000.png").read_bytes() == (clip.parent / "mask.png").read_bytes()
    write_mask(clip.parent, slice(8, 30))
    assert (predict(clip) / "00004.png").read_bytes() == first
    save_weights(clip.parent, seed=3)
    with pytest.raises(EvaluationError, match="other weights or settings"):
        predict(clip)


def test_the_frame_of_another_size_is_named(clip):
    (clip / "00003.jpg").write_bytes(encode_jpeg(np.zeros((32, 40, 3), np.uint8)))
    with pytest.raises(DataError, match=r"00003\.jpg: 40 x 32 pixels, the first frame has 64 x 48"):
        predict(clip)
    assert not (clip.parent / "out/clip").exists()


def test_a_video_of_one_frame(clip):
    for path in sorted(clip.iterdir())[1:]:
        path.unlink()
    out = predict(clip)
    assert [path.name for path in out.iterdir()] == ["00000.png"]
    assert (out / "00000.png").read_bytes() == (clip.parent / "mask.png").read_bytes()


def test_more_workers_than_the_cluster_has_are_refused_instead_of_waited_for(monkeypatch):
    import ray

    monkeypatch.setattr("ovos_ray.on_ray.session.ray_session", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(ResourceError, match="--num-workers 3: needs 3 CPUs, the cluster has 2"):
        list(predict_in_parallel(copy_first_mask, [None] * 5, 3, verbose=False))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 1.0})
    with pytest.raises(ResourceError, match="needs 2 GPUs, the cluster has 1"):
        list(predict_in_parallel(copy_first_mask, [None] * 2, 3, verbose=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": None}, "either --root or --frames"),
        ({"baseline": "copy"}, "either --checkpoint or --baseline"),
        ({"mask": None}, "--frames needs --mask or --box"),
        ({"evaluate": True}, "--evaluate needs the true masks"),
        ({"num_workers": 0}, "--num-workers 0"),
        ({"scales": "1;2"}, "--scales 1;2: not numbers"),
        ({"precision": "bf16"}, "precision=bf16"),
        ({"reference": "none"}, "reference=none"),
        ({"checkpoint": None, "baseline": "best"}, "no baseline 'best'"),
        ({"checkpoint": None, "baseline": "copy", "soft": Path("soft")}, "--soft: baselines have no probabilities"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(clip, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        predict(clip, **changes)
    assert error.value.remedy, "says what to do instead"
    assert not (clip.parent / "out").exists()


def test_what_cannot_be_scored_is_said_before_it_is_predicted(clip):
    root = clip.parent / "videos"
    root.mkdir()
    clip.rename(root / "clip")
    (clip.parent / "mask.png").rename(root / "clip.png")
    given = {"frames": None, "mask": None, "root": root, "layout": "folder", "split": "train"}
    with pytest.raises(DataError, match=r"1 of 1 videos of train cannot be scored \(clip: 1 mask\)"):
        predict(clip, **given, evaluate=True)
    assert not (clip.parent / "out").exists()
    assert len(list(predict(clip, **given).glob("*.png"))) == 5
