"""Labels that a walk back passes: compared where they are, sample by sample, and nothing else is changed by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import PLAIN, TWO_STEP, largest_difference, loss_and_gradients, make_batch, part, rng
from davis_folder import make_davis
from runs import config_of, local_stream, same
from torch import Tensor, nn

from ovos_ray.config import AugmentationConfig, DataConfig, ExperimentConfig, LossConfig, MethodConfig, override
from ovos_ray.config.digest import digest
from ovos_ray.config.recipes import make
from ovos_ray.data.clips.batches import NO_LABEL, batch_of, decode_batch
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Clip, Plan
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import decode_mask, encode_mask
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.methods import one_shot, one_shot_loss
from ovos_ray.methods.losses import frame_losses, give_unknown
from ovos_ray.networks import VOSNetwork, build
from ovos_ray.packing.pack import pack
from ovos_ray.study.space import SearchSpace
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, train_step

T_STEP = MethodConfig(backward="T-step", loss=PLAIN, further_labels="compare")
POINTS = LossConfig(cross_entropy="points", num_points=60, auxiliary_weight=0.0)


class Stub(nn.Module):
    """Says what a table says of (sample, frame): its frames are grey, and their value is which frame they are."""

    recurrent = False

    def __init__(self, samples: int, frames: int, side: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.table = nn.Parameter(torch.randn(samples, frames, 3, side, side, generator=draws).double())


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Any:
    network = Stub(3, 5, 4)

    def propagate(net: Any, frames: Tensor, masks: Tensor, order: Sequence[int], **_: Any) -> list[Tensor]:
        which = (frames[:, :, 0, 0, 0] * 255).round().long()
        samples = (frames[:, 0, 1, 0, 0] * 255).round().long()
        return [net.table[samples, which[:, at]] for at in order[1:]]

    monkeypatch.setattr(one_shot, "propagate", propagate)
    monkeypatch.setattr(one_shot, "_encode_once", lambda *_: ({}, {}))
    return network


def batch_for(known: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Three clips of five frames with two objects; `known` names the frames of each that have a label."""
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (3, 5, 4, 4)).astype(np.uint8))
    labelled = torch.tensor([[t in own for t in range(5)] for own in known])
    labels[~labelled] = NO_LABEL
    frames = torch.zeros(3, 5, 3, 4, 4, dtype=torch.uint8)
    frames[:, :, 0] = torch.arange(5)[None, :, None, None]
    frames[:, :, 1] = torch.arange(3)[:, None, None, None]
    several = {"frames": frames, "labels": labels, "label": labels[:, 0], "labelled": labelled.byte()}
    return {**several, "num_objects": torch.full((3,), 2), "weight": torch.ones(3), "position": torch.arange(3)}


def loss_by_hand(network: Any, batch: dict[str, Tensor], compared: Sequence[Sequence[int]]) -> float:
    """The mean over samples of the mean over frames of softmax cross-entropy and dice, in numpy."""
    table, means = network.table.detach().numpy(), []
    for sample, frames in enumerate(compared):
        losses = []
        for t in frames:
            label = batch["labels"][sample, t].numpy()
            p = np.exp(table[sample, t]) / np.exp(table[sample, t]).sum(0)
            entropy = -np.log(np.take_along_axis(p, label[None].astype(int), 0)).mean()
            wanted = np.stack([label == 1, label == 2])
            dice = 1 - (2 * (p[1:] * wanted).sum((1, 2)) + 1) / (p[1:].sum((1, 2)) + wanted.sum((1, 2)) + 1)
            losses.append(entropy + dice.mean())
        means.append(np.mean(losses))
    return float(np.mean(means))


def test_the_loss_is_the_mean_over_the_labelled_frames_of_each_walk(stub: Any) -> None:
    batch = batch_for([(0, 2), (0,), (0, 1, 3, 4)])
    loss, scalars = one_shot_loss(stub, batch, T_STEP, rng())
    assert loss.item() == pytest.approx(loss_by_hand(stub, batch, [(0, 2), (0,), (0, 1, 3)]), rel=1e-6)
    assert float(scalars["further_labels"]) == pytest.approx((1 + 0 + 2) / 3), "frame 4 is where the walks begin"
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = stub.table.grad
    assert gradient is not None
    taught = {(b, t) for b, t in np.ndindex(3, 5) if float(gradient[b, t].abs().max()) > 0}
    assert taught == {(0, 0), (0, 2), (1, 0), (2, 0), (2, 1), (2, 3)}
    alone, without = one_shot_loss(stub, batch, replace(T_STEP, further_labels="ignore"), rng())
    assert alone.item() == pytest.approx(loss_by_hand(stub, batch, [(0,)] * 3), rel=1e-6), "the control"
    assert "further_labels" not in without


@pytest.mark.parametrize("shared", [True, False])
def test_a_walk_of_few_steps_compares_what_it_passes(stub: Any, shared: bool) -> None:
    batch = batch_for([(0, 1), (0, 2, 3), (0, 1, 2, 3)])
    config = replace(T_STEP, backward="3-step", shared_intermediate=shared)
    walks = set()
    for seed in range(8):
        draws = one_shot.BatchRng.of(rng(seed), range(3))
        order = one_shot.backward_order("3-step", 5, draws.shared)
        own = [order if shared else one_shot.backward_order("3-step", 5, each) for each in draws.per_sample]
        walks.add(tuple(map(tuple, own)))
        compared = [
            [t for t in walk[1:] if t in known] for walk, known in zip(own, [(0, 1), (0, 2, 3), range(4)], strict=True)
        ]
        loss, _ = one_shot_loss(stub, batch, config, rng(seed))
        assert loss.item() == pytest.approx(loss_by_hand(stub, batch, compared), rel=1e-6)
    assert len(walks) > 2
    assert any(len(set(own)) > 1 for own in walks) != shared


def test_what_is_unknown_in_a_label_has_no_part_in_any_loss() -> None:
    """Background and object 1 in a row of three pixels; the third is an object that the clip's own label lacks."""
    logits = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, -5.0]]).double().view(1, 2, 1, 3).requires_grad_()
    label, unknown = torch.tensor([[[0, 0, 0]]]), torch.tensor([[[False, False, True]]])
    parts = frame_losses(give_unknown(logits, unknown), label, torch.tensor([1]), PLAIN)
    right, wrong = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    assert parts["cross_entropy"].item() == pytest.approx((right + wrong) / 3, abs=1e-6)
    p = 1 / (1 + np.exp(1)) + 1 / (1 + np.exp(-1))
    assert parts["dice"].item() == pytest.approx(1 - 1 / (p + 1), abs=1e-6)
    (parts["cross_entropy"] + parts["dice"]).sum().backward()
    assert logits.grad is not None
    assert logits.grad[..., 2].abs().max() == 0
    assert logits.grad[..., :2].abs().min() > 0.01
    coarse = give_unknown(torch.zeros(4, 1, 2, 2, 2), torch.ones(1, 4, 4, dtype=torch.bool))
    assert torch.equal(coarse.argmax(2), torch.zeros(4, 1, 2, 2, dtype=torch.long))


def test_objects_that_the_clips_own_label_lacks_are_unknown_in_further_ones(stub: Any) -> None:
    batch = batch_for([(0, 2)] * 3)
    before, _ = one_shot_loss(stub, batch, T_STEP, rng())
    batch["labels"][1, 2, :2] = NO_LABEL
    after, _ = one_shot_loss(stub, batch, T_STEP, rng())
    assert after < before
    with torch.no_grad():
        stub.table[1, 2, :, :2] += 3 * torch.randn(3, 2, 4).double()
    assert torch.equal(one_shot_loss(stub, batch, T_STEP, rng())[0], after)
    with torch.no_grad():
        stub.table[1, 2, 0, 2:] += 3
    assert one_shot_loss(stub, batch, T_STEP, rng())[0] != after, "the control"


@pytest.mark.parametrize("loss", [PLAIN, POINTS], ids=["plain", "points"])
def test_a_sample_has_the_same_loss_whatever_the_batch_that_it_is_in(stub: Any, loss: LossConfig) -> None:
    batch, config = batch_for([(0, 2), (0,), (0, 1, 3)]), replace(T_STEP, loss=loss)
    whole, _ = one_shot_loss(stub, batch, config, rng())
    alone = [one_shot_loss(stub, part(batch, slice(i, i + 1)), config, rng())[0] for i in range(3)]
    assert whole.item() == pytest.approx(sum(one.item() for one in alone) / 3, rel=1e-12)


def test_a_lost_object_is_given_in_further_labels_too(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, config = batch_for([(0, 2)] * 3), replace(T_STEP, vanished="leave_out")
    masks = torch.zeros(3, 2, 4, 4).double()
    masks[:, 0, :2] = 0.9  # object 2 is nowhere
    monkeypatch.setattr(one_shot, "_walk_forward", lambda *_: masks)
    before, _ = one_shot_loss(stub, batch, config, rng())
    with torch.no_grad():
        stub.table[:, 2, 2] += 3 * torch.randn(3, 4, 4).double()
    assert torch.equal(one_shot_loss(stub, batch, config, rng())[0], before)
    with torch.no_grad():
        stub.table[:, 2, 1] += 1
    assert one_shot_loss(stub, batch, config, rng())[0] != before, "the control"


@pytest.mark.parametrize("choice", ["draw", "merge"])
def test_without_a_reference_further_labels_show_the_same_one_object(stub: Any, choice: str) -> None:
    config = replace(T_STEP, reference="empty", empty_objects=choice)  # type: ignore[arg-type]
    batch = batch_for([(0, 2)] * 3)
    batch["labels"][0, 2, 0] = NO_LABEL
    loss, _ = one_shot_loss(stub, batch, config, rng())
    draws = one_shot.BatchRng.of(rng(), range(3)).per_sample
    one_shot.backward_order("T-step", 5, draws[0])
    drawn = [int(each.integers(1, 3)) for each in draws]
    expected = []
    for sample, t in np.ndindex(3, 5):
        if t not in (0, 2):
            continue
        label = batch["labels"][sample, t]
        one = (label > 0) & (label < 3) if choice == "merge" else label == drawn[sample]
        logits = give_unknown(stub.table.detach()[sample, t][None], (label == NO_LABEL)[None])
        expected.append(sum(frame_losses(logits, one.byte()[None], torch.tensor([1]), PLAIN).values()))
    assert loss.item() == pytest.approx(float(sum(expected)) / 6, rel=1e-6)


@pytest.mark.parametrize("name", ["xmem-tiny", "cutie-tiny"])
def test_one_label_trains_the_same_bit_for_bit_and_a_further_one_does_not(name: str) -> None:
    network, batch = build(name), make_batch(2)
    labels = batch["labels"].clone()
    labels[:, 1:] = NO_LABEL
    alone = {**batch, "labels": labels, "labelled": (torch.arange(5)[None] == 0).expand(2, 5)}
    loss = replace(POINTS, auxiliary_weight=0.1) if name == "cutie-tiny" else PLAIN
    plain = replace(TWO_STEP, backward="T-step", loss=loss)

    def of(batch: dict[str, Tensor], config: MethodConfig) -> tuple[Tensor, dict[str, Tensor]]:
        return loss_and_gradients(network, lambda n: one_shot_loss(n, batch, config, rng()))

    compare = replace(plain, further_labels="compare")
    (first, left), (second, right) = of({**batch, "labels": batch["labels"][:, :1]}, plain), of(alone, compare)
    assert torch.equal(first, second)
    assert largest_difference(left, right) == 0
    third, more = of(batch, compare)  # all frames have labels
    assert first != third
    assert largest_difference(left, more) > 0.01


# From shards to batches


def shards_of(root: Path, labels: Any) -> Path:
    if not (root / "data").exists():
        make_davis(root / "data", num_videos=2)
    name = str(labels) if isinstance(labels, str | int) else "frames"
    pack(open_dataset(root / "data"), root / name, labels=labels)
    return root / name


def columns(shards: Path, frames: tuple[int, ...], video: str = "v0", **decoding: Any) -> dict[str, Any]:
    data = DataConfig(shards=(str(shards),), clip_length=len(frames), crop_size=48, batch_size=1, augmentation=None)
    data = replace(data, **decoding.pop("data", {}))
    ids = [box.object_id for box in ShardIndex.load(shards).video(video).objects[frames[0]]]
    clip = Clip(0, 0, video, frames, 1, tuple(ids), seed=0, static=decoding.pop("static", False))
    return decode_batch(ClipDecoder(data, all_labels=False, **decoding), [clip])


def test_a_batch_says_which_frames_have_a_label(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, {"v0": [0, 3]})
    found = columns(shards, (0, 2, 3), further_labels=True)
    assert found["labelled"].tolist() == [[1, 0, 1]]
    batch = batch_of(found)
    assert batch["labels"].shape == (1, 3, 48, 48)
    assert (batch["labels"][0, 1] == NO_LABEL).all()
    turned = AugmentationConfig(frame_rotation=30.0, horizontal_flip=0.0)
    askew = columns(shards, (0, 2, 3), further_labels=True, data={"augmentation": turned})
    assert askew["labelled"].tolist() == [[1, 0, 1]], "nothing is known of corners that turn into view"
    whole = batch_of(columns(shards_of(tmp_path, "all"), (0, 2, 3), further_labels=True))
    assert whole["labelled"].tolist() == [[1, 1, 1]]
    assert torch.equal(whole["labels"][:, [0, 2]], batch["labels"][:, [0, 2]])
    ignored = batch_of(columns(shards, (0, 2, 3)))
    assert "labelled" not in ignored
    assert ignored["labels"].shape == (1, 1, 48, 48), "as ever"


def test_an_object_of_a_further_label_alone_is_unknown_and_one_that_is_not_kept_is_background(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, "all")
    # Frame 0 of video 1 shows nothing; a clip that goes back from frame 3 shows objects 1 and 3.
    path = tmp_path / "data/Annotations/480p/v1/00003.png"
    mask = decode_mask(path)
    path.write_bytes(encode_mask(np.where(mask == 3, 0, mask).astype(np.uint8)))
    pack(open_dataset(tmp_path / "data"), tmp_path / "lacking", labels="all")
    (labels,) = columns(tmp_path / "lacking", (3, 4, 0), "v1", further_labels=True)["labels"]
    assert [set(np.unique(label).tolist()) for label in labels] == [{0, 1}, {0, 1, NO_LABEL}, {0}]
    (labels,) = columns(tmp_path / "lacking", (3, 4, 0), "v1")["labels"]
    assert [set(np.unique(label).tolist()) for label in labels] == [{0, 1}, {0, 1}, {0}], "the control: background"
    (labels,) = columns(shards, (2, 3), "v1", further_labels=True, data={"max_objects": 1})["labels"]
    assert [set(np.unique(label).tolist()) for label in labels] == [{0, 1}] * 2


def test_static_steps_have_no_unknown_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = np.zeros((3, 48, 48), np.uint8)
    made[:, :9], made[1:, 20:] = 1, 3  # supervised training calls what comes later background, as published
    frames = np.zeros((3, 3, 48, 48), np.uint8)
    monkeypatch.setattr("ovos_ray.pixels.static_clips.synthesise", lambda *_, spec: (frames, made))
    data = {"static_share": ((0.0, 1.0),), "clip_length": 3}
    found = columns(shards_of(tmp_path, 2), (0,), static=True, further_labels=True, data=data)
    assert found["labelled"].tolist() == [[1, 1, 1]]
    assert np.array_equal(found["labels"][0], made == 1)


def test_a_plan_of_ranks_has_the_same_loss_as_one(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 4)
    data = DataConfig(
        shards=(str(shards),), clip_length=4, crop_size=32, batch_size=4, clip_start="labels", max_objects=2
    )
    plan, decoder = Plan.load(data, seed=0, steps=3), ClipDecoder(data, all_labels=False, further_labels=True)
    network: VOSNetwork = build("xmem-tiny").double()
    numbers = []

    def loss(step: int, rank: int, ranks: int) -> float:
        batch = batch_of(decode_batch(decoder, plan.clips(step, rank, ranks)))
        found, scalars = one_shot_loss(network, batch, T_STEP, rng(step), max_objects=2)
        numbers.append(float(scalars["further_labels"]))
        return found.item() * len(batch["weight"])

    for step in range(3):
        assert loss(step, 0, 1) == pytest.approx(loss(step, 0, 2) + loss(step, 1, 2), rel=1e-9)
    assert len(set(numbers)) > 2


# In a run


def test_a_run_compares_them_and_one_label_stays_what_it_was(shards: Path, tmp_path: Path) -> None:
    several = tmp_path / "several"
    pack(open_dataset(shards.parent / "dataset"), several, labels=4, split="train")

    def trained(folder: Path, further: str) -> tuple[dict[str, Tensor], list[float | None]]:
        settings = {"data.clip_start": "labels", "method.backward": "T-step", "data.clip_length": 4, "train.steps": 3}
        config = config_of(folder, tmp_path, **settings, **{"method.further_labels": further})
        network = build(config.network.name, seed=config.seed)
        module, compared = TrainingModule(network, config), []
        optimizer = build_optimizer(network, config.optimizer, torch.device("cpu"))
        for step, batch in enumerate(local_stream(config).batches()):
            scalars = train_step(module, batch, optimizer, config, step)
            compared.append(float(scalars["further_labels"]) if "further_labels" in scalars else None)
        return network.state_dict(), compared

    (one, none), (one_compared, nothing) = trained(shards, "ignore"), trained(shards, "compare")
    (four, still_none), (four_compared, some) = trained(several, "ignore"), trained(several, "compare")
    assert same(one, one_compared)
    assert none == still_none == [None] * 3
    assert nothing == [0.0] * 3
    assert sum(number or 0.0 for number in some) > 0
    assert not same(four, four_compared)
    assert not same(one, four)


def test_it_is_off_in_every_recipe_and_on_where_label_budgets_are_compared() -> None:
    plain = ExperimentConfig()
    assert digest(override(plain, ["method.further_labels=ignore"])) == digest(plain)
    compare = override(plain, ["method.further_labels=compare"])
    assert digest(compare) != digest(plain)
    assert not override(compare, ["method.name=supervised"]).method.compares_further_labels, "it knows all labels"
    for name in ("stcn", "xmem", "cutie", "with_static_clips"):
        assert make(f"trainables.one_shot.{name}", ExperimentConfig).method.further_labels == "ignore"
    space = make("search_spaces.label_budget", SearchSpace)
    assert space.overrides["method.further_labels"] == "compare"
