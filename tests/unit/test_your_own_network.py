"""The network of docs/your-own-network.md, as it stands on the page."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from batches import make_batch

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.evaluate.infer.inference import predict_video
from ovos_ray.methods import propagate
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, train_step

PAGE = Path(__file__).parents[2] / "docs" / "your-own-network.md"


@pytest.fixture
def patch_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page, under the name of the page, with its one line in place."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "patch_copy.py").write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("patch_copy", tmp_path / "patch_copy.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "patch_copy", module)
    spec.loader.exec_module(module)
    line = eval(
        re.search(r"^    (\(patch_copy\..*\)),$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)[1],
        {"patch_copy": module},
    )
    monkeypatch.setattr(networks, "_FAMILIES", (*networks._FAMILIES, line))
    return module


def test_it_is_built_by_name(patch_copy: ModuleType) -> None:
    assert isinstance(networks.build("patch-copy"), patch_copy.PatchCopy)
    assert networks.build("patch-copy", key_dim=8).key.out_channels == 8


@pytest.mark.usefixtures("patch_copy")
def test_features_depend_on_nothing_but_the_image() -> None:
    network, images = networks.build("patch-copy").train(), torch.rand(3, 3, 48, 64)
    assert torch.allclose(network.encode(images).key[1], network.encode(images[1:2]).key[0], atol=1e-5)


@pytest.mark.usefixtures("patch_copy")
def test_a_still_video_keeps_its_mask() -> None:
    network = networks.build("patch-copy")
    with torch.no_grad():
        network.key.weight *= 300  # sharp keys: every position finds itself
    frames = torch.rand(1, 1, 3, 48, 64).expand(-1, 3, -1, -1, -1)
    masks = (torch.rand(1, 2, 3, 4) > 0.5).float().repeat_interleave(16, 2).repeat_interleave(16, 3)
    masks[:, 1] *= 1 - masks[:, 0]
    logits = propagate(network, frames, masks, (0, 1, 2))
    assert torch.equal(logits[-1].argmax(1) == 1, masks[:, 0] > 0)
    assert torch.equal(logits[-1].argmax(1) == 2, masks[:, 1] > 0)


@pytest.mark.usefixtures("patch_copy")
def test_it_learns_from_one_label_per_video() -> None:
    config = override(
        ExperimentConfig(), {"network.name": "patch-copy", "data.max_objects": 2, "optimizer.learning_rate": 2e-3}
    )
    network = networks.build("patch-copy")
    module = TrainingModule(network, config)
    optimizer = build_optimizer(network, config.optimizer, torch.device("cpu"))
    batch = make_batch(num_samples=4, clip_length=3, side=64)
    losses = [float(train_step(module, batch, optimizer, config, step)["loss"]) for step in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.usefixtures("patch_copy")
def test_it_is_evaluated_like_the_others() -> None:
    batch = make_batch(num_samples=1, clip_length=4, side=48)
    frames = batch["frames"][0].permute(0, 2, 3, 1).numpy()
    predictions = list(predict_video(networks.build("patch-copy"), frames, {0: batch["label"][0].numpy()}))
    assert len(predictions) == 4
    assert (predictions[0] == batch["label"][0].numpy()).all()
    assert all(mask.shape == (48, 48) for mask in predictions)
