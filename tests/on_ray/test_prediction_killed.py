"""`ovos-ray predict` killed with SIGKILL and run again: the files of an undisturbed run, none ever half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovos_ray import networks
from ovos_ray.data.masks import encode_jpeg, encode_mask

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMES = 30


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A DAVIS 2017 tree of three videos of noise, with one mask each; and weights beside it."""
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 64), np.uint8)
    mask[8:30, 10:30], mask[20:40, 35:60] = 1, 2
    root = tmp_path / "DAVIS"
    for name in ("bear", "swan", "toad"):
        for folder in ("JPEGImages", "Annotations"):
            (root / folder / "480p" / name).mkdir(parents=True)
        (root / f"Annotations/480p/{name}/00000.png").write_bytes(encode_mask(mask))
        for t in range(FRAMES):
            frame = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            (root / f"JPEGImages/480p/{name}/{t:05d}.jpg").write_bytes(encode_jpeg(frame))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\nswan\ntoad\n")
    network = networks.build("xmem-tiny", seed=2)
    torch.save({"network_name": "xmem-tiny", "network": network.state_dict()}, tmp_path / "weights.pt")
    return root


def start(root: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ovos_ray", "predict", "--checkpoint", str(root.parent / "weights.pt")]
    command += ["--root", str(root), "--split", "val", "--out", str(out), *options]
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(command, env=variables, cwd=root.parent)


def visible(out: Path) -> dict[str, bytes]:
    """The masks under their names, as bytes; hidden folders are those in which a video is being written."""
    files = out.glob("[!.]*/*.png")
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(files)}


def partial_files(out: Path) -> Iterator[Path]:
    return out.glob(".*.partial/*.png")


def kill_in_the_middle(process: subprocess.Popen[bytes], out: Path, after: int) -> None:
    """Kills a process once `after` videos are done and the next one is being written."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        masks = visible(out)
        assert len(masks) % FRAMES == 0, "half a video is visible"
        if len(masks) >= after * FRAMES and any(partial_files(out)):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_prediction_run_again_gives_the_same_files(dataset, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(dataset, whole).wait() == 0
    expected = visible(whole)
    assert len(expected) == 3 * FRAMES
    kill_in_the_middle(start(dataset, killed), killed, after=1)
    found = visible(killed)
    assert found.items() <= expected.items()
    assert FRAMES <= len(found) < len(expected)
    assert start(dataset, killed).wait() == 0
    assert visible(killed) == expected
    assert not any(killed.glob(".*.partial"))
    for path in killed.glob("*/*.png"):
        assert np.asarray(Image.open(path)).max() <= 2


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.ray
def test_killed_prediction_with_workers_run_again_gives_the_same_files(dataset, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(dataset, whole).wait() == 0
    kill_in_the_middle(start(dataset, killed, "--num-workers", "2"), killed, after=0)
    assert visible(killed).items() <= visible(whole).items()
    assert start(dataset, killed, "--num-workers", "2").wait() == 0
    assert visible(killed) == visible(whole)
