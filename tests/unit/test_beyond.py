"""What goes beyond the paper: averaged weights, the oracle reference, what forward masks say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from batches import TWO_STEP, make_batch, rng
from runs import config_of, local_stream, same, train_alone
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ovos_ray import networks
from ovos_ray.config import override
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import ConfigError
from ovos_ray.methods import one_shot, one_shot_loss, propagate
from ovos_ray.methods.losses import mask_confidence
from ovos_ray.packing.pack import pack
from ovos_ray.run.checks import check_config
from ovos_ray.run.state import _average_of
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.step import TrainingModule, train_step


@pytest.fixture(scope="module")
def all_labels(shards: Path) -> Path:
    out = shards.parent / "all"
    pack(open_dataset(shards.parent / "dataset"), out, labels="all", split="train")
    return out


def test_the_average_is_that_of_the_weights_after_every_step(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, **{"train.ema_decay": 0.75})
    network = networks.build(config.network.name, seed=config.seed)
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, torch.device("cpu"))
    expected: dict[str, torch.Tensor] = {}
    torch.use_deterministic_algorithms(True)
    for step, batch in enumerate(local_stream(config).batches()):
        train_step(module, batch, optimizer, config, step)
        now = copy.deepcopy(network.state_dict())
        expected = {k: 0.75 * expected[k] + 0.25 * now[k] for k in now} if expected else now
    last = train_alone(config)
    assert same(last, network.state_dict()), "the average changes nothing in training"
    averaged = safetensors.torch.load(RunFolder.of(config).storage.read("network_ema.safetensors"))
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value)
    assert not same(averaged, last)


def test_an_average_is_updated_without_a_copy_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("what is copied to a device waits for it")

    layer: Any = torch.nn.Linear(2, 2)
    plain, mine = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.75)), _average_of(layer, 0.75)
    assert mine is not None
    for step in range(3):
        torch.nn.init.constant_(layer.weight, step)
        plain.update_parameters(layer)
        with monkeypatch.context() as patch:
            if step:  # the first one copies the weights
                patch.setattr(torch.Tensor, "to", refuse)
            mine.update_parameters(layer)
    assert same(mine.state_dict(), plain.state_dict())
    monkeypatch.setattr(torch.Tensor, "to", refuse)
    with pytest.raises(AssertionError, match="waits"):
        plain.update_parameters(layer)


def test_a_resumed_average_is_the_same(shards: Path, tmp_path: Path) -> None:
    def averaged(name: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = safetensors.torch.load(
            RunFolder.at(str(tmp_path), name).storage.read("network_ema.safetensors")
        )
        return found

    class StoppedError(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 4 and "train/loss" in record:
            raise StoppedError

    config = config_of(shards, tmp_path, **{"train.ema_decay": 0.9})
    train_alone(override(config, {"name": "whole"}))
    stopped = override(config, {"name": "stopped"})
    with pytest.raises(StoppedError):
        train_alone(stopped, watcher=stop)
    train_alone(stopped)
    train_alone(override(config, {"name": "other", "train.ema_decay": 0.5}))
    assert same(averaged("stopped"), averaged("whole"))
    assert not same(averaged("other"), averaged("whole"))


def test_averaged_weights_are_scored_beside_the_last(shards: Path, tmp_path: Path) -> None:
    root = str(shards.parent / "dataset")
    config = config_of(shards, tmp_path, **{"train.ema_decay": 0.0, "train.steps": 2, "evaluation.root": root})
    train_alone(config)
    scores = (RunFolder.of(config).result() or {})["scores"]
    # With nothing kept of what was, the average is the last weights.
    assert {name: scores[f"ema/{name}"] for name in ("jf", "j", "f")} == {n: scores[n] for n in ("jf", "j", "f")}
    storage = RunFolder.of(config).storage
    assert storage.read("scores-ema.csv") == storage.read("scores.csv")


def test_the_oracle_starts_from_the_true_mask_and_changes_nothing_else() -> None:
    network, batch = networks.build("xmem-tiny", seed=0).double(), make_batch()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    oracle = override(TWO_STEP, {"reference": "true"})
    found, scalars = one_shot_loss(network, batch, oracle, rng())
    draws = one_shot.BatchRng.of(rng(), batch["position"].tolist())
    order = one_shot.backward_order("2-step", 5, draws.shared)
    label = batch["labels"][:, -1]
    masks = torch.stack([label == 1, label == 2], 1).double()
    frames = batch["frames"].double() / 255
    selector = torch.tensor([[True, n > 1] for n in batch["num_objects"].tolist()])
    logits = propagate(network, frames, masks, order, selector=selector, rng=draws)[-1]
    parts = one_shot.frame_losses(logits, batch["label"], batch["num_objects"], oracle.loss)
    torch.testing.assert_close(found, one_shot.total_loss(parts, batch["weight"])[0])
    moved = {**batch, "labels": batch["labels"].roll(1, 2)}
    assert not torch.equal(one_shot_loss(network, moved, oracle, rng())[0], found)
    assert torch.equal(
        one_shot_loss(network, moved, TWO_STEP, rng())[0], one_shot_loss(network, batch, TWO_STEP, rng())[0]
    )
    assert "reference_iou" not in scalars, "it would compare the label with itself"
    with pytest.raises(ConfigError, match="label of the last frame"):
        one_shot_loss(network, {**batch, "labels": batch["labels"][:, :1]}, oracle, rng())


def test_the_forward_mask_is_compared_with_the_label_it_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = networks.build("stcn-tiny", seed=0), make_batch(num_samples=2, clip_length=3, side=16)
    label = torch.zeros(2, 16, 16, dtype=torch.uint8)
    label[:, :8, :8], label[1, 8:, :8] = 1, 2
    batch["labels"][:, -1] = label
    found = torch.zeros(2, 16, 16, dtype=torch.long)
    found[0, :4, :8], found[0, :4, 8:] = 1, 1  # half of the object and as much beside it: 32 of 96 pixels
    found[1, :8, :8], found[1, 8:, :4] = 2, 2  # object 1 called 2, half of object 2 found: 0 and 32 of 128
    masks = torch.nn.functional.one_hot(found, 3).permute(0, 3, 1, 2)[:, 1:].float()
    monkeypatch.setattr(one_shot, "_walk_forward", lambda *_: masks)
    _, scalars = one_shot_loss(network, batch, TWO_STEP, rng(), max_objects=2)
    assert float(scalars["reference_iou"]) == pytest.approx(((32 / 96) + (0 + 32 / 128) / 2) / 2)
    assert float(scalars["reference_identity"]) == pytest.approx((1 + 32 / 96) / 2)
    assert float(scalars["reference_confidence"]) == pytest.approx(1, abs=1e-6)
    assert float(scalars["reference_foreground"]) == pytest.approx((64 / 256 + 96 / 256) / 2)
    alone = {**batch, "labels": batch["labels"][:, :1]}
    _, without = one_shot_loss(network, alone, TWO_STEP, rng(), max_objects=2)
    assert "reference_iou" not in without
    assert "reference_confidence" in without


def test_confidence_is_the_mean_probability_of_what_is_found() -> None:
    masks = torch.zeros(3, 2, 2, 2)
    masks[0, 0] = torch.tensor([[0.9, 0.6], [0.1, 0.0]])
    masks[1, :, 0, 0] = torch.tensor([0.4, 0.3])  # together foreground, neither sure
    masks[2] = 0.2
    assert mask_confidence(masks).tolist() == pytest.approx([0.75, 0.4, 0.0])


def test_labels_of_later_frames_are_shown_and_not_trained_on(shards: Path, all_labels: Path, tmp_path: Path) -> None:
    records: dict[str, list[dict[str, Any]]] = {"first": [], "all": []}
    weights = {}
    for name, folder in (("first", shards), ("all", all_labels)):
        kept = records[name]
        weights[name] = train_alone(config_of(folder, tmp_path, name=name), watcher=kept.append)
    assert same(weights["first"], weights["all"])
    assert any("train/reference_iou" in record for record in records["all"])
    assert not any("train/reference_iou" in record for record in records["first"])
    oracle = config_of(all_labels, tmp_path, **{"name": "oracle", "method.reference": "true"})
    check_config(oracle)
    assert not same(train_alone(oracle), weights["all"])
    assert (RunFolder.of(oracle).result() or {})["label_percent"] == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.reference": "true"}, "method.reference = 'true' needs a label on every frame"),
        ({"train.ema_decay": 1.5}, "train.ema_decay = 1.5 is out of range"),
    ],
)
def test_what_cannot_be_meant_is_refused(shards: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(config_of(shards, tmp_path, **changes))
