"""The fully supervised counterpart against loops written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import double_network, largest_difference, loss_and_gradients, make_batch, part

from ovos_ray.config import LossConfig, MethodConfig
from ovos_ray.errors import ConfigError
from ovos_ray.methods import propagate, supervised_loss
from ovos_ray.networks import build
from ovos_ray.seeding import BatchRng, generator

CONFIG = MethodConfig(name="supervised", loss=LossConfig(cross_entropy="plain"))


@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
def test_the_loss_is_a_sum_over_all_later_frames(name: str) -> None:
    batch = make_batch(2)
    network = double_network(name)
    loss, scalars = supervised_loss(network, batch, CONFIG, generator(1, 0, "step"))
    draws = BatchRng.of(generator(1, 0, "step"), batch["position"].tolist())
    masks = torch.stack([batch["label"] == 1, batch["label"] == 2], 1).double()
    selector = torch.tensor([[True, False], [True, True]])
    frames = batch["frames"].double() / 255
    outputs = propagate(network, frames, masks, range(5), selector=selector, rng=draws)
    expected = 0.0
    for t, logits in enumerate(outputs, start=1):
        label = batch["labels"][:, t].long()
        for b, count in ((0, 1), (1, 2)):
            real = logits[b : b + 1, : 1 + count]
            expected += torch.nn.functional.cross_entropy(real, label[b : b + 1]).item() / 2
            probability = logits[b].softmax(0)[1:]
            for k in range(2):
                m = (label[b] == 1 + k).double()
                overlap, total = (probability[k] * m).sum(), probability[k].sum() + m.sum()
                expected += (1 - (2 * overlap + 1) / (total + 1)).item() / 2 / 2
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert set(scalars) == {"loss", "cross_entropy", "dice", "iou"}
    assert loss.requires_grad


def test_every_later_label_matters_and_the_first_is_the_start() -> None:
    batch, network = make_batch(2), build("xmem-tiny")
    loss, _ = supervised_loss(network, batch, CONFIG)
    for t in range(1, 5):
        labels = batch["labels"].clone()
        labels[:, t] = labels[:, t].flip(1)
        assert supervised_loss(network, batch | {"labels": labels}, CONFIG)[0] != loss
    assert supervised_loss(network, batch | {"label": batch["label"].flip(1)}, CONFIG)[0] != loss


@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(cross_entropy="points", num_points=60)])
def test_gradients_do_not_depend_on_the_split_over_workers(loss: LossConfig) -> None:
    batch, config = make_batch(4), replace(CONFIG, loss=loss)

    def of(samples: slice, seed: int = 1) -> Any:
        piece = part(batch, samples)
        return loss_and_gradients(
            network, lambda n: supervised_loss(n, piece, config, generator(seed, 0, "step"), step=30_000, max_objects=2)
        )

    network = double_network("xmem-tiny")
    whole, left, right, other = of(slice(0, 4)), of(slice(0, 2)), of(slice(2, 4)), of(slice(0, 4), seed=2)
    mean = {key: (left[1][key] + right[1][key]) / 2 for key in whole[1]}
    assert largest_difference(mean, whole[1]) < 1e-10
    assert largest_difference(other[1], whole[1]) > 1e-6


@pytest.mark.parametrize("missing", ["labels", "frames of labels", "frames"])
def test_clips_without_labels_are_refused(missing: str) -> None:
    batch = make_batch(2, 1 if missing == "frames" else 5)
    if missing == "labels":
        del batch["labels"]
    if missing == "frames of labels":
        batch["labels"] = batch["labels"][:, :1]
    with pytest.raises(ConfigError, match="label for each frame"):
        supervised_loss(build("stcn-tiny"), batch, CONFIG)
