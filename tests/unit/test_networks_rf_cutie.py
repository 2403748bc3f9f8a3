"""Cutie against rf-cutie, the maintained fork of the published code, with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ovos_ray.methods.propagation import propagate
from ovos_ray.networks import build
from ovos_ray.seeding import BatchRng

pytest.importorskip("cutie")
pytest.importorskip("omegaconf")

REFERENCES = 3


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch):
    """Makes the published training wrapper of a size, without fetching ImageNet weights."""
    from cutie.model.utils import resnet

    monkeypatch.setattr(resnet, "model_zoo", SimpleNamespace(load_url=lambda *args, **kwargs: {}))
    monkeypatch.setattr(resnet, "load_weights_add_extra_dim", lambda *args, **kwargs: None)

    def make(size: str, clip_length: int, deep_update: float, seed: int = 0) -> torch.nn.Module:
        from cutie.model.train_wrapper import CutieTrainWrapper
        from omegaconf import OmegaConf

        folder = Path(importlib.util.find_spec("cutie").submodule_search_locations[0]) / "config" / "model"
        model = OmegaConf.load(folder / "base.yaml")
        if size == "small":
            small = OmegaConf.load(folder / "small.yaml")
            del small["defaults"]
            model = OmegaConf.merge(model, small)
        stage = OmegaConf.create(
            {
                "num_objects": 3,
                "seq_length": clip_length,
                "num_ref_frames": REFERENCES,
                "deep_update_prob": deep_update,
                "amp": False,
            }
        )
        torch.manual_seed(seed)
        return CutieTrainWrapper(OmegaConf.create({"model": model}), stage).train()

    return make


def _clip(batch: int, length: int, height: int, width: int, objects: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(height * width + objects)
    frames = torch.rand(batch, length, 3, height, width, generator=rng)
    label = torch.randint(0, objects + 1, (batch, height // 8 + 1, width // 8 + 1), generator=rng)
    label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
    return frames, torch.stack([label == k for k in range(1, objects + 1)], dim=1).float()


def _theirs(network: torch.nn.Module, frames: Tensor, masks: Tensor, selector: Tensor) -> dict[str, Tensor]:
    counts = [torch.tensor(int(count)) for count in selector.sum(1)]
    data = {"rgb": frames, "first_frame_gt": masks[:, None], "selector": selector, "info": {"num_objects": counts}}
    with torch.no_grad():
        return network(data)


def _assert_equal(own: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    assert own.shape == theirs.shape
    assert (own - theirs).abs().max() <= tolerance


@pytest.mark.parametrize(
    ("size", "length", "height", "width", "objects", "deep"),
    [
        ("small", 2, 64, 64, 1, 0.0),
        ("small", 4, 64, 96, 2, 0.0),
        ("small", 4, 80, 64, 3, 1.0),
        ("small", 3, 71, 93, 4, 1.0),
        ("small", 3, 49, 50, 2, 0.0),
        pytest.param("base", 4, 64, 80, 2, 1.0, marks=pytest.mark.slow),
        pytest.param("base", 3, 90, 71, 3, 0.0, marks=pytest.mark.slow),
    ],
)
def test_logits_and_auxiliary_logits(
    size: str, length: int, height: int, width: int, objects: int, deep: float, reference
) -> None:
    from cutie.utils.tensor_utils import pad_divide_by, unpad

    theirs, own = reference(size, length, deep), build(f"cutie-{size}").train()
    own.load_state_dict(theirs.state_dict())
    frames, masks = _clip(1, length, height, width, objects)
    padded, pad = pad_divide_by(frames[0], 16)
    expected = _theirs(theirs, padded[None], pad_divide_by(masks, 16)[0], torch.ones(1, objects))

    aux: list[dict[str, Tensor]] = []
    with torch.no_grad():
        logits = propagate(own, frames, masks, range(length), deep_update=lambda position: deep == 1.0, aux=aux)
    assert len(logits) == len(aux) == length - 1
    for t in range(1, length):
        _assert_equal(logits[t - 1], unpad(expected[f"logits_{t}"], pad))
        # The linear head on random weights saturates: its logits reach the clamp at 16, where one bit is worth 1e-4.
        _assert_equal(aux[t - 1]["sensory"][0], expected[f"aux_{t}"]["sensory_logits"], tolerance=1e-4 * 16)
        _assert_equal(aux[t - 1]["query"].permute(1, 2, 0, 3, 4), expected[f"aux_{t}"]["q_logits"])


def test_drawn_references_and_padded_objects(reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples of 1 and 2 objects out of 3, and clips so long that reference frames are drawn."""
    length = 6
    theirs, own = reference("small", length, 0.0, seed=1), build("cutie-small").train()
    own.load_state_dict(theirs.state_dict())
    frames, masks = _clip(2, length, 48, 64, 3)
    selector = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    masks = masks * selector[:, :, None, None]

    drawn = iter(np.random.default_rng(0).permutation(5) for _ in range(100))
    published: list[list[int]] = []

    def permutation(count: int) -> Tensor:
        order = [int(i) for i in next(drawn) if i < count]
        published.append(order[:REFERENCES])
        return torch.tensor(order)

    monkeypatch.setattr(torch, "randperm", permutation)
    expected = _theirs(theirs, frames, masks, selector)
    assert len(published) == 2 * 2  # frames 4 and 5 of both samples

    class _Replayed:
        def __init__(self, draws: list[list[int]]) -> None:
            self.draws = iter(draws)

        def choice(self, count: int, size: int, replace: bool) -> np.ndarray:
            return np.array(next(self.draws))

    rng = BatchRng(np.random.default_rng(0), (_Replayed(published[0::2]), _Replayed(published[1::2])))
    with torch.no_grad():
        logits = propagate(
            own, frames, masks, range(length), deep_update=lambda position: False, selector=selector, rng=rng
        )
    for t in range(1, length):
        _assert_equal(logits[t - 1][:, :3], expected[f"logits_{t}"])  # theirs trim the object that no sample has
        assert (logits[t - 1][:, 3] < -16).all()
