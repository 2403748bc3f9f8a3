"""Propagation along an order: what it computes, what it draws, and what it leaves out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded_network import one_hot, seeded_clip
from torch import Tensor

from ovos_ray.errors import ConfigError
from ovos_ray.methods import propagation
from ovos_ray.methods.propagation import encode_frames, propagate
from ovos_ray.networks import VOSNetwork, build
from ovos_ray.networks.base import Padding
from ovos_ray.networks.blocks import EMPTY_LOGIT
from ovos_ray.seeding import BatchRng

TINY = ("stcn-tiny", "xmem-tiny", "cutie-tiny")
RECURRENT = ("xmem-tiny", "cutie-tiny")


def _batch(samples: int = 2, length: int = 6, height: int = 48, width: int = 64) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    frames = torch.rand(samples, length, 3, height // 4, width // 4, generator=rng).repeat_interleave(4, 3)
    label = torch.randint(0, 3, (samples, height // 16, width // 16), generator=rng)
    masks = one_hot(label.repeat_interleave(16, 1).repeat_interleave(16, 2))
    return frames.repeat_interleave(4, 4), masks


def _close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-4) -> bool:
    return all(torch.allclose(a, b, atol=tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", TINY)
def test_an_order_is_the_clip_rearranged(name: str) -> None:
    """The first frame of the order is the reference, whatever its index."""
    frames, masks = _batch()
    network = build(name)
    with torch.no_grad():
        ordered = propagate(network, frames, masks, (4, 2, 5, 0, 3, 1))
        rearranged = propagate(network, frames[:, [4, 2, 5, 0, 3, 1]], masks, range(6))
    assert [tuple(logits.shape) for logits in ordered] == [(2, 3, 48, 64)] * 5
    assert _close(ordered, rearranged)


@pytest.mark.parametrize("name", TINY)
def test_features_encoded_once_serve_several_propagations(name: str) -> None:
    frames, masks = _batch()
    network = build(name)
    with torch.no_grad():
        features = encode_frames(network, frames, (0, 3, 5, 3))
        assert sorted(features) == [0, 3, 5]
        for order in ((0, 3, 5), (5, 0)):
            assert _close(
                propagate(network, frames, masks, order, features=features), propagate(network, frames, masks, order)
            )


@pytest.mark.parametrize("name", TINY)
def test_samples_do_not_influence_each_other(name: str) -> None:
    frames, masks = _batch()
    network = build(name)
    rng = BatchRng.of(np.random.default_rng(0), (10, 11))
    with torch.no_grad():
        together = propagate(network, frames, masks, range(6), rng=rng, deep_update=lambda position: False)
        rng = BatchRng.of(np.random.default_rng(0), (10, 11))
        alone = propagate(
            network,
            frames[1:],
            masks[1:],
            range(6),
            rng=BatchRng(rng.shared, rng.per_sample[1:]),
            deep_update=lambda position: False,
        )
    assert _close([logits[1:] for logits in together], alone)


@pytest.mark.parametrize("name", RECURRENT)
def test_draws_are_a_function_of_the_generator(name: str) -> None:
    frames, masks = _batch()
    network = build(name)
    with torch.no_grad():
        first, again, other = (
            propagate(network, frames, masks, range(6), rng=np.random.default_rng(seed)) for seed in (3, 3, 4)
        )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not _close(first, other, 1e-6)


def _spy(network: VOSNetwork, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    calls: list[tuple[str, object]] = []
    encode, memorise, segment = network.encode, network.memorise, network.segment

    def spy_encode(images):
        calls.append(("encode", len(images)))
        return encode(images)

    def spy_memorise(features, state, *, deep_update=False):
        calls.append(("memorise", deep_update))
        return memorise(features, state, deep_update=deep_update)

    def spy_segment(features, readout, state, **options):
        calls.append(("segment", options["update_sensory"]))
        return segment(features, readout, state, **options)

    for name, spy in (("encode", spy_encode), ("memorise", spy_memorise), ("segment", spy_segment)):
        monkeypatch.setattr(network, name, spy)
    return calls


def test_only_what_the_order_needs_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, masks = _batch()
    network = build("xmem-tiny")
    calls = _spy(network, monkeypatch)
    propagate(network, frames, masks, (5, 2, 0), deep_update=lambda position: False)
    assert calls == [
        ("encode", 3 * 2),
        ("memorise", True),
        ("segment", True),
        ("memorise", False),
        ("segment", False),
    ]


@pytest.mark.parametrize(("name", "expected"), [("stcn-tiny", 0.0), ("xmem-tiny", 0.2), ("cutie-tiny", 0.2)])
def test_deep_updates_follow_the_published_probability(name: str, expected: float) -> None:
    network, draws = build(name), BatchRng.of(np.random.default_rng(0), (0,))
    share = np.mean([propagation._draw_deep_update(network, draws) for _ in range(4000)])
    assert share == pytest.approx(expected, abs=0.02)


def test_first_memorised_frame_always_makes_a_deep_update(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, masks = _batch()
    network = build("cutie-tiny")
    calls = _spy(network, monkeypatch)
    for seed in range(5):
        propagate(network, frames, masks, (3, 1, 0), rng=np.random.default_rng(seed))
    assert [call for call in calls if call[0] == "memorise"][::2] == [("memorise", True)] * 5


@pytest.mark.parametrize(("name", "first"), [("stcn-tiny", None), ("xmem-tiny", True), ("cutie-tiny", False)])
def test_reference_frames_follow_the_published_rules(name: str, first: bool | None) -> None:
    network, draws = build(name), BatchRng.of(np.random.default_rng(0), (0, 1))
    assert all(propagation._references(network, memorised, draws) is None for memorised in (1, 2, 3))
    if first is None:
        assert propagation._references(network, 7, draws) is None
        return
    counts: Counter[int] = Counter()
    for _ in range(3000):
        samples = propagation._references(network, 5, draws)
        assert len(samples) == 2
        for chosen in samples:
            assert len(chosen) == len(set(chosen)) == 3
            assert chosen == sorted(chosen)
            counts.update(chosen)
    shares = [counts[frame] / 6000 for frame in range(5)]
    expected = [1.0] + [2 / 4] * 4 if first else [3 / 5] * 5
    assert shares == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", RECURRENT)
def test_unread_frames_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading references (0, 2) from memory equals reading a memory of these two frames."""
    frames, masks = _batch()
    network = build(name)
    with torch.no_grad():
        features = encode_frames(network, frames, range(4))
        memory = []
        for t in range(3):
            frame, _ = network.memorise(features[t], network.start(masks))
            memory.append(frame)
        chosen = propagation._read(memory, torch.tensor([[0, 2], [1, 2]]), features[3])
        for sample, kept in enumerate(([0, 2], [1, 2])):
            only = propagation._read([memory[t] for t in kept], None, features[3])
            assert torch.allclose(chosen.value[sample], only.value[sample], atol=1e-6)
    if chosen.summary is not None:  # object memory is of all memorised frames, read or not
        assert torch.allclose(chosen.summary, sum(frame.summary for frame in memory))


@pytest.mark.parametrize(("chosen", "is_read"), [([0, 1, 2], False), ([0, 1, 3], True)])
def test_frames_that_no_sample_reads_are_left_out_of_the_backward_pass(
    chosen: list[int], is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zero that goes through their encoder would cost its time, and round the gradients of all others otherwise."""
    frames, masks = _batch()
    network = build("xmem-tiny")
    memorise, values = network.memorise, []

    def remembered(*args: object, **kwargs: object) -> object:
        frame, state = memorise(*args, **kwargs)
        values.append(frame.value)
        frame.value.retain_grad()
        return frame, state

    monkeypatch.setattr(network, "memorise", remembered)
    monkeypatch.setattr(propagation, "_references", lambda _, at, __: [[0, 1, 2], chosen] if at == 4 else None)
    propagate(network, frames, masks, range(5))[-1].sum().backward()
    assert [value.grad is not None for value in values] == [True, True, True, is_read]


@pytest.mark.parametrize("name", TINY)
def test_padded_objects_change_nothing_and_have_constant_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, masks = _batch()
    padded = F.pad(masks, (0, 0, 0, 0, 0, 2))
    selector = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    padded = padded * selector[:, :, None, None]
    network = build(name)
    with torch.no_grad():
        aux: list[dict[str, Tensor]] = []
        trimmed = propagate(network, frames, padded, range(4), selector=selector, aux=aux)
        monkeypatch.setattr(propagation, "_last_real", lambda selector: 4)
        whole_aux: list[dict[str, Tensor]] = []
        whole = propagate(network, frames, padded, range(4), selector=selector, aux=whole_aux)
        single = propagate(network, frames[1:], padded[1:, :1], range(4), deep_update=lambda position: False)
        monkeypatch.undo()
        both = propagate(network, frames, padded, range(4), selector=selector, deep_update=lambda position: False)
    assert _close(trimmed, whole, 1e-3)
    for logits in trimmed:
        assert logits.shape[1] == 5
        assert (logits[:, 3:] == EMPTY_LOGIT).all()
        assert torch.allclose(logits[1, 2], torch.tensor(EMPTY_LOGIT))
    assert _close([logits[1:, :2].softmax(1) for logits in both], [logits.softmax(1) for logits in single], 1e-3)
    for own, other in zip(aux, whole_aux, strict=True):
        for key, logits in own.items():
            assert logits.shape == other[key].shape
            assert torch.allclose(logits, other[key], atol=1e-2)


def test_a_batch_without_objects_still_runs() -> None:
    frames, masks = _batch()
    logits = propagate(build("xmem-tiny"), frames, 0 * masks, (0, 1, 2), selector=torch.zeros(2, 2))
    assert all((x[:, 1:] <= EMPTY_LOGIT + 1e-5).all() and x.isfinite().all() for x in logits)


def test_masks_of_any_dtype_and_orders_of_any_kind_are_taken() -> None:
    frames, masks = _batch()
    masks = (masks > 0.5).to(masks.dtype)
    network = build("xmem-tiny").double()
    with torch.no_grad():
        expected = propagate(network, frames.double(), masks.double(), [2, 1, 0])
        for given, order in ((masks.bool(), torch.tensor([2, 1, 0])), (masks.byte(), np.array([2, 1, 0]))):
            found = propagate(network, frames.double(), given, order)  # type: ignore[arg-type]
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert not torch.equal(propagate(network, frames.double(), 1 - masks, [2, 1, 0])[-1], expected[-1])


def test_masks_of_no_objects_are_refused() -> None:
    frames, masks = _batch()
    with pytest.raises(ConfigError, match="no objects"):
        propagate(build("stcn-tiny"), frames, masks[:, :0], [0, 1])


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("height", "width"), [(45, 63), (33, 50)])
def test_odd_sizes_are_padded_and_cropped(name: str, height: int, width: int) -> None:
    frames, masks = _batch()
    frames, masks = frames[..., :height, :width], masks[..., :height, :width]
    network = build(name)
    padding = Padding.of(height, width)
    with torch.no_grad():
        logits = propagate(network, frames, masks, range(3))
        by_hand = propagate(network, padding.images(frames, network.padding_colour), padding.masks(masks), range(3))
    assert all(x.shape[-2:] == (height, width) for x in logits)
    assert _close(logits, [padding.crop(x) for x in by_hand])


@pytest.mark.parametrize("name", TINY)
def test_gradient_flows_through_masks_and_memory_to_the_first_masks(name: str) -> None:
    frames, masks = _batch()
    masks.requires_grad_()
    network = build(name)
    propagate(network, frames, masks, (3, 2, 1, 0))[-1].square().mean().backward()
    assert masks.grad.abs().sum() > 0
    trained = {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    assert "decoder.pred.weight" in trained or "mask_decoder.pred.weight" in trained


@pytest.mark.parametrize("name", RECURRENT)
def test_one_step_leaves_the_decoders_sensory_update_without_gradient(name: str) -> None:
    """Section 3.4 of the paper."""
    frames, masks = _batch()
    norms = {}
    for order in ((3, 0), (3, 1, 0)):
        network = build(name)
        propagate(network, frames, masks, order)[-1].square().mean().backward()
        update = network.decoder.hidden_update if name == "xmem-tiny" else network.mask_decoder.sensory_update
        norms[len(order)] = 0.0 if update.transform.weight.grad is None else float(update.transform.weight.grad.norm())
    assert norms[2] == 0.0
    assert norms[3] > 0.0


@pytest.mark.parametrize("name", TINY)
def test_recomputing_changes_neither_outputs_nor_gradients(name: str) -> None:
    frames, masks = _batch()
    results = []
    for recompute in (False, True):
        network, aux = build(name), []
        logits = propagate(network, frames, masks, (3, 1, 0), aux=aux, recompute=recompute)
        loss = logits[-1].square().mean() + sum(x.sigmoid().mean() for head in aux for x in head.values())
        loss.backward()
        results.append((logits, aux, {k: p.grad for k, p in network.named_parameters() if p.grad is not None}))
    assert _close(results[0][0], results[1][0], 1e-6)
    assert len(results[0][1]) == len(results[1][1])
    assert results[0][2].keys() == results[1][2].keys()
    assert all(torch.allclose(results[0][2][key], results[1][2][key], atol=1e-5) for key in results[0][2])


def test_auxiliary_logits_come_once_per_segmented_frame() -> None:
    frames, masks = _batch()
    aux: list[dict[str, Tensor]] = []
    propagate(build("cutie-tiny"), frames, masks, (0, 1, 2, 3), aux=aux)
    assert [sorted(heads) for heads in aux] == [["query", "sensory"]] * 3
    assert aux[0]["sensory"].shape == (1, 2, 3, 3, 4)
    assert aux[0]["query"].shape == (3, 2, 3, 3, 4)
    aux = []
    propagate(build("xmem-tiny"), frames, masks, (0, 1), aux=aux)
    assert aux == []


def test_the_clip_itself_is_left_alone() -> None:
    frames, _ = seeded_clip()
    masks = torch.zeros(1, 2, *frames.shape[-2:])
    before = frames.clone()
    propagate(build("stcn-tiny"), frames, masks, (0, 1, 2))
    assert torch.equal(frames, before)
    assert not masks.any()
