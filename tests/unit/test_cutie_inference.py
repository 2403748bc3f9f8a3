"""Inference with Cutie against the published implementation, with the same random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cutie_oracle import adopt, pair, step
from PIL import Image

LONG_TERM = {
    "long_term": True, "max_frames": 4, "min_frames": 2, "num_prototypes": 32, "max_tokens": 200, "buffer_tokens": 40,
    "memory_interval": 2,
}  # fmt: skip


def synthetic(num_frames: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, 6, 10 + num_frames), dtype=np.float32))
    wide = torch.nn.functional.interpolate(coarse, (56, 72 + 2 * num_frames), mode="bicubic").clamp(0, 1)[0]
    mask = torch.zeros(56, 72, dtype=torch.int64)
    mask[8:30, 5:30], mask[32:50, 40:66] = 1, 2
    return [wide[:, :, 2 * t : 2 * t + 72].contiguous() for t in range(num_frames)], mask


def real(frames: Path, mask: Path) -> tuple[list[torch.Tensor], dict[int, torch.Tensor]]:
    """A real sequence at a quarter of its size; the object of its first mask is cut into a left and a right one.

    No frame may occur twice: equal keys tie in top-k, and implementations resolve ties differently.
    """
    size = (214, 120)
    images = [np.array(Image.open(path).resize(size)) for path in sorted(frames.glob("*.jpg"))]
    ids = (np.array(Image.open(mask).resize(size, Image.Resampling.NEAREST)) > 0).astype(np.int64)
    ids[(ids > 0) & (np.arange(size[0]) > np.median(np.nonzero(ids)[1]))] = 2
    return [torch.from_numpy(x).permute(2, 0, 1).float() / 255 for x in images], {0: torch.from_numpy(ids)}


def compare(core, propagator, images, masks):
    """Steps both from the same state, and returns the largest difference of probabilities."""
    worst = 0.0
    for t, image in enumerate(images):
        if t:
            adopt(propagator, core)
        expected = step(core, image, masks.get(t))
        found = propagator.step(image, masks.get(t))
        worst = max(worst, float((found - expected).abs().max()))
        assert [bank.num_prototypes for bank in propagator.banks] == (
            [s.shape[-1] for s in core.memory.long_mem.k.values()]
            if propagator.settings.long_term and core.memory.long_mem.k
            else [0] * len(propagator.banks)
        ), t
    return worst


@pytest.mark.parametrize("changes", [{"memory_interval": 3}, LONG_TERM, {"memory_interval": 6, "stagger_updates": 3}])
def test_every_step_equals_the_published_one(monkeypatch, changes):
    core, propagator = pair(monkeypatch, **changes, top_k=15)  # the published one needs k positions
    images, mask = synthetic(16)
    assert compare(core, propagator, images, {0: mask}) < 1e-4
    if propagator.settings.long_term:
        assert propagator.banks[0].num_prototypes > 0


def test_running_freely_stays_with_the_published_one(monkeypatch):
    core, propagator = pair(monkeypatch, memory_interval=2, top_k=15)
    images, mask = synthetic(14)
    for t, image in enumerate(images):
        given = mask if t == 0 else None
        difference = (propagator.step(image, given) - step(core, image, given)).abs().max()
        assert difference < 1e-4


@pytest.mark.slow
@pytest.mark.shared
def test_real_clip_equals_the_published_one(monkeypatch, shared_root):
    core, propagator = pair(monkeypatch)
    images, masks = real(shared_root / "multi-object/frames", shared_root / "multi-object/masks/00000.png")
    assert compare(core, propagator, images, masks) < 1e-3


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.shared
def test_hundred_frames_with_long_term_memory_equal_the_published_ones(monkeypatch, shared_root):
    core, propagator = pair(monkeypatch, **LONG_TERM)
    davis = shared_root / "davis-mini"
    images, masks = real(davis / "JPEGImages/480p/parkour", davis / "Annotations/480p/parkour/00000.png")
    assert len(images) == 100
    assert compare(core, propagator, images, masks) < 1e-3
    assert core.memory.long_mem.k[0].shape[-1] > 100


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.shared
def test_hundred_frames_running_freely(monkeypatch, shared_root, record_property):
    """Which prototypes are kept is decided between nearly equal usages, so runs may part after the first ones."""
    core, propagator = pair(monkeypatch, **LONG_TERM)
    davis = shared_root / "davis-mini"
    images, masks = real(davis / "JPEGImages/480p/parkour", davis / "Annotations/480p/parkour/00000.png")
    assert len(images) == 100
    equal = []
    for t, image in enumerate(images):
        expected, found = step(core, image, masks.get(t)), propagator.step(image, masks.get(t))
        equal.append(float((expected.argmax(0) == found.argmax(0)).float().mean()))
    record_property("pixels_equal", f"{np.mean(equal):.4f}")
    print(f"\npixels equal over 100 frames: mean {np.mean(equal):.4f}, least {min(equal):.4f}")
    assert min(equal[:6]) > 0.9999  # at most two of 25,680 pixels: some are as likely the one as the other object
    assert np.mean(equal) > 0.5
