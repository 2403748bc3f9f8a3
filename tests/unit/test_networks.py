"""Networks and their parts, against formulas written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seeded_network import one_hot, seeded_clip
from torch import nn

from ovos_ray.data.folders.synthetic import SyntheticConfig, render_video
from ovos_ray.errors import ConfigError
from ovos_ray.methods.propagation import propagate
from ovos_ray.networks import Readout, State, build, names, structure
from ovos_ray.networks.base import Padding
from ovos_ray.networks.blocks import CBAM, EMPTY_LOGIT, CAResBlock, aggregate, other_masks
from ovos_ray.networks.convolutions import FusingConv2d, PointwiseConv2d
from ovos_ray.networks.memory import augment_memory, augment_query
from ovos_ray.networks.object_transformer import ObjectSummarizer, PositionalEncoding
from ovos_ray.networks.resnet import FrozenBatchNorm2d
from ovos_ray.networks.sensory import DecoderUpdate, DeepUpdate
from ovos_ray.networks.xmem import CONFIGS
from ovos_ray.seeding import generator

TINY = ("stcn-tiny", "xmem-tiny", "cutie-tiny")


def test_all_networks_are_known_by_name() -> None:
    assert {"stcn", "xmem", "cutie-base", "cutie-small", *TINY} <= set(names())


def test_unknown_names_and_settings_are_errors_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"(?s)unknown network 'cutie-smal'.*cutie-small"):
        build("cutie-smal")
    with pytest.raises(ConfigError, match=r"(?s)no setting 'hiden_dim'.*hidden_dim"):
        build("xmem-tiny", hiden_dim=0)


@pytest.mark.parametrize(
    ("tiny", "full"), [("stcn-tiny", "stcn"), ("xmem-tiny", "xmem"), ("cutie-tiny", "cutie-small")]
)
def test_tiny_networks_have_the_structure_of_the_full_ones(tiny: str, full: str) -> None:
    small, large = build(tiny), build(full)
    assert type(small) is type(large)
    assert set(small.state_dict()) < set(large.state_dict())
    assert 300_000 < sum(p.numel() for p in small.parameters()) < 700_000


@pytest.mark.parametrize("name", names())
def test_the_structure_of_a_network_is_that_of_the_network(name: str) -> None:
    first, second = (
        {key: (tensor.shape, tensor.dtype, key in parameters) for key, tensor in network.state_dict().items()}
        for network in (structure(name), build(name))
        for parameters in [dict(network.named_parameters())]
    )
    assert first == second


def test_batch_norm_statistics_are_frozen_in_training_mode_and_affine_parameters_are_trained() -> None:
    network = build("cutie-small").train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, FrozenBatchNorm2d) and not norm.training for norm in norms)
    frames, labels = seeded_clip()
    before = {key: value.clone() for key, value in network.state_dict().items() if "running" in key or "num_b" in key}
    propagate(network, frames, one_hot(labels[:, 0]), (0, 1))[-1].mean().backward()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
    assert all(norm.weight.grad is not None for norm in norms)


@pytest.mark.parametrize("name", TINY)
def test_features_do_not_depend_on_the_other_frames_of_a_batch_nor_on_the_mode(name: str) -> None:
    images = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    network = build(name).train()
    together, alone = network.encode(images), network.encode(images[1:2])
    evaluated = network.eval().encode(images)
    for features, index in ((alone, 0), (evaluated, 1)):
        assert torch.allclose(together.key[1], features.key[index], atol=1e-5)
        for own, other in zip(together.maps, features.maps, strict=True):
            assert torch.allclose(own[1], other[index], atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_objects_are_interchangeable(name: str) -> None:
    frames, labels = seeded_clip()
    network, masks = build(name), one_hot(labels[:, 0])
    with torch.no_grad():
        straight = propagate(network, frames, masks, (0, 1, 2))[-1]
        swapped = propagate(network, frames, masks.flip(1), (0, 1, 2))[-1]
    assert not torch.allclose(straight[:, 1], straight[:, 2], atol=1e-3)
    assert torch.allclose(straight, swapped[:, [0, 2, 1]], atol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_logits_are_those_of_the_returned_masks(name: str) -> None:
    frames, labels = seeded_clip()
    network = build(name)
    features = network.encode(frames[0]).split(1)
    memory, state = network.memorise(features[0], network.start(one_hot(labels[:, 0])), deep_update=True)
    readout = Readout(value=memory.value, summary=memory.summary)
    logits, state = network.segment(features[1], readout, state)
    assert logits.shape == (1, 3, *frames.shape[-2:])
    assert logits.dtype == torch.float32
    assert torch.allclose(state.masks, logits.softmax(1)[:, 1:])


@pytest.mark.parametrize("name", ["xmem-tiny", "cutie-tiny"])
def test_each_sensory_update_happens_only_when_asked_for(name: str) -> None:
    frames, labels = seeded_clip()
    network = build(name)
    features = network.encode(frames[0]).split(1)
    start = network.start(one_hot(labels[:, 0]))
    assert not start.sensory.any()
    memory, kept = network.memorise(features[0], start, deep_update=False)
    assert torch.equal(kept.sensory, start.sensory)
    _, deep = network.memorise(features[0], start, deep_update=True)
    assert deep.sensory.any()
    readout = Readout(value=memory.value, summary=memory.summary)
    assert torch.equal(network.segment(features[1], readout, deep, update_sensory=False)[1].sensory, deep.sensory)
    assert not torch.equal(network.segment(features[1], readout, deep)[1].sensory, deep.sensory)


def test_a_tiny_xmem_starts_with_keys_that_tell_positions_apart() -> None:
    """From a flat affinity one-shot training does not start: a roll-out would lose which object is which."""
    frames, _ = render_video(generator(0, 0, "synthetic train"), SyntheticConfig(num_frames=2))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float()[..., :96] / 255

    def effective_matches(gain: float) -> float:
        features = build("xmem-tiny", seed=0, key_gain=gain).encode(images)
        assert features.shrinkage is not None
        assert features.selection is not None
        keys = features.key.flatten(2)
        memory = augment_memory(keys[:1], features.shrinkage.flatten(2)[:1], with_selection=True)
        queries = augment_query(keys[1:], features.selection.flatten(2)[1:], with_shrinkage=True)
        weights = torch.bmm(memory.transpose(1, 2), queries).softmax(1)
        return float((weights * weights.log()).sum(1).neg().exp().mean().detach())

    assert effective_matches(CONFIGS["xmem-tiny"].key_gain) < 12 < 18 < effective_matches(1.0)


def test_xmem_without_sensory_memory_has_none() -> None:
    network = build("xmem-tiny", hidden_dim=0)
    frames, labels = seeded_clip()
    assert not network.recurrent
    assert network.start(one_hot(labels[:, 0])).sensory is None
    assert torch.isfinite(propagate(network, frames, one_hot(labels[:, 0]), (0, 1, 2))[-1]).all()


def test_new_objects_get_an_empty_sensory_memory_and_old_ones_keep_theirs() -> None:
    network = build("xmem-tiny")
    old = State(masks=torch.zeros(1, 1, 32, 32), sensory=torch.rand(1, 1, network.sensory_dim, 2, 2))
    masks = torch.rand(1, 3, 32, 32)
    extended = network.extend(old, masks)
    assert torch.equal(extended.masks, masks)
    assert torch.equal(extended.sensory[:, :1], old.sensory)
    assert extended.sensory.shape[1] == 3
    assert not extended.sensory[:, 1:].any()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 65), (33, 50)])
def test_padding_is_even_with_the_smaller_half_first_and_can_be_taken_off(height: int, width: int) -> None:
    padding = Padding.of(height, width)
    images, masks = torch.rand(2, 3, height, width), torch.rand(2, 4, height, width)
    padded = padding.images(images, (0.1, 0.2, 0.3))
    assert padded.shape[-2] % 16 == padded.shape[-1] % 16 == 0
    assert padded.shape[-2] - height < 16
    assert 0 <= padding.right - padding.left <= 1
    assert 0 <= padding.bottom - padding.top <= 1
    assert torch.equal(padding.crop(padded), images)
    assert torch.equal(padding.crop(padding.masks(masks)), masks)
    assert padding.masks(masks).sum() == pytest.approx(masks.sum().item(), rel=1e-5)
    if padding.bottom:
        assert torch.allclose(padded[0, :, -1, -1], torch.tensor([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("shared_first", [True, False])
@pytest.mark.parametrize("objects", [1, 3])
def test_fusing_convolution_is_the_convolution_of_the_concatenation(objects: int, shared_first: bool) -> None:
    torch.manual_seed(0)
    fusing = FusingConv2d(5, 4, 6, 3, shared_first=shared_first)
    shared, own = torch.rand(2, 5, 7, 8), torch.rand(2 * objects, 4, 7, 8)
    repeated = shared.repeat_interleave(objects, dim=0)
    pair = (repeated, own) if shared_first else (own, repeated)
    expected = F.conv2d(torch.cat(pair, dim=1), fusing.weight, fusing.bias, padding=1)
    assert torch.allclose(fusing(shared, own), expected, atol=1e-5)


def test_aggregation_by_hand() -> None:
    probabilities = torch.tensor([0.9, 0.5, 0.0])[None]
    expected = [math.log(p / (1 - p)) for p in (0.1 * 0.5 * 1.0, 0.9, 0.5, 1e-7)]
    assert aggregate(probabilities)[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert pytest.approx(math.log(1e-7 / (1 - 1e-7)), abs=1e-5) == EMPTY_LOGIT
    certain = aggregate(torch.ones(1, 1))[0]
    assert certain.isfinite().all()
    assert certain[0] == EMPTY_LOGIT


def test_other_masks_by_hand() -> None:
    masks = torch.tensor([0.25, 0.5, 1.0])[None, :, None, None]
    assert other_masks(masks).flatten().tolist() == [1.5, 1.25, 0.75]
    assert not other_masks(masks[:, :1]).any()


def test_sensory_cell_by_hand() -> None:
    torch.manual_seed(0)
    cell = DeepUpdate(3, 2)
    value, sensory = torch.rand(1, 3, 1, 1), torch.rand(1, 2, 1, 1)
    gates = cell.transform(torch.cat([value, sensory], dim=1)).flatten().tolist()
    updated = cell(value, sensory).flatten().tolist()
    for channel, before in enumerate(sensory.flatten().tolist()):
        forget, update = (1 / (1 + math.exp(-gates[channel + offset])) for offset in (0, 2))
        expected = forget * before * (1 - update) + update * math.tanh(gates[channel + 4])
        assert updated[channel] == pytest.approx(expected, abs=1e-6)


def test_decoder_update_averages_each_scale_down_to_stride_16() -> None:
    torch.manual_seed(0)
    update = DecoderUpdate((4, 3, 2), 5, 2)
    g16, g8, g4, logits = torch.rand(1, 4, 2, 2), torch.rand(1, 3, 4, 4), torch.rand(1, 2, 8, 8), torch.rand(1, 1, 8, 8)
    sensory = torch.rand(1, 2, 2, 2)
    means = [np.zeros((1, c, 2, 2), np.float32) for c in (3, 3)]
    for y in range(2):
        for x in range(2):
            means[0][..., y, x] = g8[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].numpy().mean((2, 3))
            block = torch.cat([g4, logits], dim=1)[..., 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            means[1][..., y, x] = block.numpy().mean((2, 3))
    mixed = (
        update.g16_conv(g16) + update.g8_conv(torch.from_numpy(means[0])) + update.g4_conv(torch.from_numpy(means[1]))
    )
    forget, renew, new = update.transform(torch.cat([mixed, sensory], dim=1)).chunk(3, dim=1)
    expected = forget.sigmoid() * sensory * (1 - renew.sigmoid()) + renew.sigmoid() * new.tanh()
    assert torch.allclose(update(g16, g8, g4, logits, sensory), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 64, 48, 40), (1, 64, 96, 48), (2, 4, 5, 6)])
def test_pointwise_convolution_by_rows_is_the_same(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    torch.manual_seed(0)
    conv, x = PointwiseConv2d(shape[1], 96), torch.randn(shape).to(memory_format=torch.channels_last)
    assert conv._by_rows(x) == (x.numel() > 2**16)
    assert not conv._by_rows(x.contiguous())
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = conv(own), F.conv2d(other, conv.weight, conv.bias)
    assert found.stride() == expected.stride()
    assert torch.allclose(found, expected, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), (z, conv.weight)) for y, z in ((found, own), (expected, other))]
    for left, right in zip(*gradients, strict=True):
        assert torch.allclose(left, right, rtol=1e-4, atol=1e-3)


def test_positional_encoding_by_hand() -> None:
    height, width, dim = 3, 5, 16
    encoding = PositionalEncoding(dim)(height, width)
    assert encoding.shape == (height, width, dim)
    for y in range(height):
        for x in range(width):
            for axis, (position, length) in enumerate(((x, width), (y, height))):
                for j in range(4):
                    angle = position / (length - 1 + 1e-6) * 32 / 128 ** (2 * j / 8)
                    pair = encoding[y, x, 8 * axis + 2 * j : 8 * axis + 2 * j + 2].tolist()
                    assert pair == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-4)


@torch.no_grad()
def test_object_summaries_are_sums_not_means() -> None:
    torch.manual_seed(0)
    summarizer = ObjectSummarizer(8, 4)
    value, masks = torch.rand(1, 8, 2, 3), torch.tensor([[[1.0, 0.5, 0.0], [0.0, 0.25, 1.0]]])
    result = summarizer(masks, value)
    expected = np.zeros((4, 9))
    for y in range(2):
        for x in range(3):
            token = summarizer.input_proj(value[0, :, y, x]) + summarizer.pos_enc(2, 3)[y, x]
            weights = summarizer.weights_pred(token).sigmoid()
            for query in range(4):
                share = masks[0, y, x] if query < 2 else 1 - masks[0, y, x]
                weight = float(weights[query] * share)
                expected[query] += [*(weight * summarizer.feature_pred(token)).tolist(), weight]
    assert np.allclose(result[0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("channels", "kernel"), [(256, 5), (48, 3), (64, 3), (512, 5)])
def test_channel_attention_kernel_size(channels: int, kernel: int) -> None:
    assert CAResBlock(channels).conv.weight.shape == (1, 1, kernel)


def test_channel_gate_sums_both_pools_and_spatial_gate_takes_the_maximum_first() -> None:
    torch.manual_seed(0)
    attention, x = CBAM(32), torch.randn(2, 32, 5, 6)
    mlp, conv = attention.ChannelGate.mlp, attention.SpatialGate.spatial.conv
    gated = x * (mlp(x.flatten(2).mean(2)) + mlp(x.flatten(2).max(2).values)).sigmoid()[:, :, None, None]
    statistics = torch.stack([gated.max(1).values, gated.mean(1)], dim=1)
    assert torch.allclose(attention(x), gated * conv(statistics).sigmoid(), atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_autocast_changes_little(name: str) -> None:
    frames, labels = seeded_clip()
    network, masks = build(name), one_hot(labels[:, 0])
    with torch.no_grad():
        exact = propagate(network, frames, masks, (0, 1, 2))[-1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = propagate(network, frames, masks, (0, 1, 2))[-1]
    assert rounded.dtype == torch.float32
    assert (exact.softmax(1) - rounded.softmax(1)).abs().max() < 0.05
