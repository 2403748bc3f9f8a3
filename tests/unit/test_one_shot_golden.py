"""The backward walk against what the published networks compute."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import rng

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.methods import backward_order, one_shot, one_shot_loss
from ovos_ray.networks import build
from ovos_ray.seeding import BatchRng


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["stcn", "xmem", "cutie-base", "cutie-small"])
def test_golden_values_of_the_published_networks(shared_root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    golden = np.load(shared_root / "golden" / f"{name}.npz")
    specification = importlib.util.spec_from_file_location("seeded", shared_root / "golden" / "seeded_weights.py")
    assert specification is not None
    assert specification.loader is not None
    seeded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(seeded)
    network = build(name).to(memory_format=torch.channels_last)  # the layout that training uses
    network.load_state_dict(seeded.seeded_state_dict(network.state_dict()))
    network.deep_update_probability = 0.0
    frames = torch.from_numpy(golden["frames"]).permute(0, 3, 1, 2)[None]
    label = torch.from_numpy(golden["labels"][:1])
    one = torch.ones(1)
    batch = {"frames": frames, "label": label, "num_objects": 2 * one.long(), "weight": one, "position": one}
    reference = torch.from_numpy(golden["forward/prob_T"]).float().view(1, 2, *label.shape[1:])
    monkeypatch.setattr(one_shot, "_walk_forward", lambda *_: reference)
    loss_only = LossConfig(cross_entropy="plain", dice=False)
    seed = next(s for s in range(100) if backward_order("2-step", 4, BatchRng.of(rng(s), [1]).shared) == [3, 2, 0])
    for backward in ("1-step", "2-step", "T-step"):
        config = MethodConfig(backward=backward, allow_untrained_sensory=True, loss=loss_only)
        network.train()
        network.zero_grad(set_to_none=True)
        loss, _ = one_shot_loss(network, batch, config, rng(seed))
        loss.backward()  # type: ignore[no-untyped-call]
        prefix = f"backward/{backward}/"
        assert loss.item() == pytest.approx(float(golden[prefix + "ce"]), rel=1e-4)
        norms = {
            k.removeprefix(prefix + "gradnorm/"): float(golden[k]) for k in golden if k.startswith(prefix + "grad")
        }
        assert len(norms) >= 5
        for key, norm in norms.items():
            gradient = network.get_parameter(key).grad
            found = 0.0 if gradient is None else float(gradient.norm())
            assert found == pytest.approx(norm, rel=2e-3, abs=1e-7), key
