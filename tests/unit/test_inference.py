"""Inference over whole videos: equal to training-time propagation, streaming, and the rules of given masks."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from ovos_ray import networks
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor, predict_video
from ovos_ray.evaluate.infer.propagator import Propagator
from ovos_ray.methods.propagation import propagate

TINY = ["stcn-tiny", "xmem-tiny", "cutie-tiny"]
HEIGHT, WIDTH, FRAMES = 50, 70, 6


@pytest.fixture(params=TINY)
def network(request: pytest.FixtureRequest) -> networks.VOSNetwork:
    return networks.build(request.param, seed=1).eval()


def video(num_frames: int = FRAMES, seed: int = 0) -> list[np.ndarray]:
    """Smooth noise that drifts to the right."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 8, 16 + num_frames), dtype=np.float32))
    wide = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH + 3 * num_frames), mode="bicubic").clamp(0, 1)
    picture = (255 * wide[0].permute(1, 2, 0)).numpy().astype(np.uint8)
    return [np.ascontiguousarray(picture[:, 3 * t : 3 * t + WIDTH]) for t in range(num_frames)]


def first_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:25, 5:30] = 1
    mask[30:45, 30:60] = 2
    return mask


def tensors(frames: list[np.ndarray]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(f).permute(2, 0, 1).float() / 255 for f in frames])


def run(network, frames, settings, given=None):
    propagator = Propagator(network, settings)
    given = {0: first_mask()} if given is None else given
    last = len(frames) - 1
    return [
        propagator.step(image, torch.from_numpy(given[t]) if t in given else None, last=t == last)
        for t, image in enumerate(tensors(frames))
    ]


EVERY_FRAME = {
    "memory_interval": 1, "top_k": None, "max_frames": None, "long_term": False, "exclusive_update": False,
    "stagger_updates": None, "shortest_side": 0,
}  # fmt: skip


def test_inference_equals_training_time_propagation(network):
    frames = video()
    masks = torch.stack([torch.from_numpy(first_mask() == i).float() for i in (1, 2)])[None]
    network.num_reference_frames = None
    with torch.no_grad():
        logits = propagate(network, tensors(frames)[None], masks, range(FRAMES), deep_update=lambda _: True)
    found = run(network, frames, InferenceSettings.of(network, **EVERY_FRAME))
    for expected, probabilities in zip(logits, found[1:], strict=True):
        torch.testing.assert_close(probabilities, expected[0].softmax(0), rtol=0, atol=2e-6)
    fewer = run(network, frames, InferenceSettings.of(network, **EVERY_FRAME | {"memory_interval": 3}))
    assert (fewer[-1] - found[-1]).abs().max() > 1e-5  # negative control


def test_memory_frames_and_sensory_updates_follow_the_published_schedule(network, monkeypatch):
    memorised, updated = [], []
    memorise, segment = network.memorise, network.segment
    clock = iter(range(1000))
    now = [0]

    def spy_memorise(*args, **kwargs):
        memorised.append((now[0], kwargs["deep_update"]))
        return memorise(*args, **kwargs)

    def spy_segment(*args, **kwargs):
        now[0] = next(clock)
        if kwargs["update_sensory"]:
            updated.append(now[0])
        return segment(*args, **kwargs)

    next(clock)
    monkeypatch.setattr(network, "memorise", spy_memorise)
    monkeypatch.setattr(network, "segment", spy_segment)
    list(predict_video(network, video(12), {0: first_mask()}))
    assert memorised == [(0, True), (5, True), (10, True)]
    if not network.recurrent:
        return
    published = {"XMem": [1, 2, 3, 4, 6, 7, 8, 9], "Cutie": list(range(1, 11))}
    assert updated == published[type(network).__name__]


def test_staggered_updates_by_hand():
    settings = InferenceSettings(memory_interval=10, stagger_updates=5)
    assert [t for t in range(1, 11) if settings.updates_sensory(t, t == 10)] == [1, 3, 6, 8, 10]
    assert all(InferenceSettings(stagger_updates=5).updates_sensory(t, False) for t in range(1, 6))
    once = InferenceSettings(memory_interval=5, stagger_updates=1)
    assert [t for t in range(1, 6) if once.updates_sensory(t, False)] == [1]


def test_published_settings():
    expected = {"stcn-tiny": (20, 100, False), "xmem-tiny": (30, 10, True), "cutie-tiny": (30, 5, False)}
    for name, (top_k, max_frames, long_term) in expected.items():
        settings = InferenceSettings.of(networks.build(name))
        assert (settings.top_k, settings.max_frames, settings.long_term) == (top_k, max_frames, long_term)
        assert (settings.memory_interval, settings.shortest_side) == (5, 480)


def test_objects_may_appear_later_with_any_ids(network):
    later = np.where(first_mask() == 2, 200, 0).astype(np.uint8)
    first = np.where(first_mask() == 1, 7, 0).astype(np.uint8)
    predictor = NetworkPredictor(network, InferenceSettings.of(network), soft=True)
    predictions = list(predictor(video(9), {2: first, 5: later}))
    assert all(not p.mask.any() and p.ids == () for p in predictions[:2])
    np.testing.assert_array_equal(predictions[2].mask, first)
    assert [p.ids for p in predictions[2:5]] == [(7,)] * 3
    assert [p.ids for p in predictions[5:]] == [(7, 200)] * 4
    np.testing.assert_array_equal(predictions[5].mask == 200, later == 200)
    for p in predictions[2:]:
        assert set(np.unique(p.mask)) <= {0, *p.ids}
        assert p.probabilities.shape == (1 + len(p.ids), HEIGHT, WIDTH)
        np.testing.assert_allclose(p.probabilities.sum(0), 1, atol=1e-5)


def test_known_objects_before_a_new_one_are_not_disturbed(network):
    frames = video(9)
    alone = list(predict_video(network, frames, {0: first_mask()}))
    joined = list(
        predict_video(network, frames, {0: first_mask(), 5: np.where(first_mask() == 2, 9, 0).astype(np.uint8)})
    )
    for t in range(5):
        np.testing.assert_array_equal(alone[t], joined[t])


def test_a_given_mask_corrects_a_known_object(network):
    correction = np.where(first_mask() == 1, 1, 0).astype(np.uint8)
    propagator = Propagator(network, InferenceSettings.of(network))
    for t, image in enumerate(tensors(video(4))):
        mask = {0: first_mask(), 3: correction}.get(t)
        probabilities = propagator.step(image, None if mask is None else torch.from_numpy(mask))
    assert propagator.ids == [1, 2]
    assert len(propagator.banks) == 1
    np.testing.assert_array_equal(probabilities[1].numpy() > 0.5, correction == 1)


def test_empty_reference_starts_from_nothing(network):
    frames = video()
    network.num_reference_frames = None
    with torch.no_grad():
        logits = propagate(
            network, tensors(frames)[None], torch.zeros(1, 1, HEIGHT, WIDTH), range(FRAMES), deep_update=lambda _: True
        )
    settings = InferenceSettings.of(network, **EVERY_FRAME, reference="empty")
    predictions = list(NetworkPredictor(network, settings, soft=True)(frames, {0: first_mask()}))
    assert not predictions[0].mask.any()
    assert predictions[-1].ids == (1,)
    np.testing.assert_allclose(predictions[-1].probabilities, logits[-1][0].softmax(0), atol=2e-6)


def test_mirrored_video_gives_mirrored_masks_with_flip(network):
    frames, mask = video(), first_mask()
    settings = InferenceSettings.of(network, flip=True)
    straight = list(NetworkPredictor(network, settings, soft=True)(frames, {0: mask}))
    mirrored = list(NetworkPredictor(network, settings, soft=True)([f[:, ::-1] for f in frames], {0: mask[:, ::-1]}))
    for a, b in zip(straight, mirrored, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities[:, :, ::-1], atol=1e-5)
    plain = InferenceSettings.of(network)
    single = list(NetworkPredictor(network, plain, soft=True)(frames, {0: mask}))
    assert np.abs(single[-1].probabilities - straight[-1].probabilities).max() > 1e-5


def test_scales_are_averaged(network):
    frames = video()

    def last(**changes):
        predictor = NetworkPredictor(network, InferenceSettings.of(network, shortest_side=40, **changes), soft=True)
        return list(predictor(frames, {0: first_mask()}))[-1].probabilities

    both = last(scales=(1.0, 0.8))
    np.testing.assert_allclose(both, (last() + last(scales=(0.8,))) / 2, atol=1e-6)
    assert both.shape == (3, HEIGHT, WIDTH)


@pytest.fixture
def sizes(network, monkeypatch):
    """Sizes of the frames that the network has encoded."""
    seen, encode = [], network.encode

    def spy(images):
        seen.append(tuple(images.shape[-2:]))
        return encode(images)

    monkeypatch.setattr(network, "encode", spy)
    return seen


@pytest.mark.parametrize(("scale", "size"), [(1.0, (64, 80)), (1.5, (80, 112)), (0.5, (32, 48))])
def test_a_scale_may_enlarge(network, sizes, scale, size):
    masks = list(predict_video(network, video(2), {0: first_mask()}, scales=(scale,), shortest_side=0))
    assert set(sizes) == {size}  # 50 x 70 by the scale, padded to multiples of 16
    assert masks[1].shape == (HEIGHT, WIDTH)


def test_frames_are_scaled_down_and_never_up(network, sizes):
    frames = video()
    masks = list(predict_video(network, frames, {0: first_mask()}, shortest_side=32))
    assert set(sizes) == {(32, 48)}  # 50 x 70 to 32 x 44, padded to multiples of 16
    assert all(mask.shape == (HEIGHT, WIDTH) for mask in masks)
    sizes.clear()
    list(predict_video(network, frames, {0: first_mask()}, shortest_side=480))
    assert set(sizes) == {(64, 80)}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_close(network, precision):
    frames = video()
    full = list(NetworkPredictor(network, InferenceSettings.of(network), True)(frames, {0: first_mask()}))
    half = list(
        NetworkPredictor(network, InferenceSettings.of(network, precision=precision), True)(frames, {0: first_mask()})
    )
    assert np.abs(full[-1].probabilities - half[-1].probabilities).max() < 0.05


def test_frames_are_taken_one_ahead(network):
    taken = []

    def frames():
        for t, frame in enumerate(video(10)):
            taken.append(t)
            yield frame

    masks = predict_video(network, frames(), {0: first_mask()})
    assert taken == []
    next(masks)
    assert taken == [0, 1]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_memory_is_bounded_on_long_videos(network):
    settings = InferenceSettings.of(network, num_prototypes=4, max_tokens=16, buffer_tokens=0, memory_interval=1)
    settings = InferenceSettings.of(network, **{**vars(settings), "max_frames": 4, "min_frames": 2})
    propagator = Propagator(network, settings)
    sizes = []
    frames = tensors(video(10))[:, :, :32, :32]
    for t in range(60):
        mask = torch.from_numpy(first_mask()[:32, :32]) if t == 0 else None
        propagator.step(frames[t % 10], mask)
        sizes.append(propagator.banks[0].num_positions)
    assert max(sizes) <= 4 * 4 + 16
    assert max(sizes[30:]) == max(sizes[45:])


@pytest.mark.slow
def test_nothing_accumulates_over_hundreds_of_frames(network):
    """Counts the elements of every living tensor: exact, where resident memory is noisy."""
    long_term = {"long_term": True, "max_frames": 6, "min_frames": 3, "num_prototypes": 8, "max_tokens": 40}
    changes = long_term if network.recurrent else {"max_frames": 6}
    propagator = Propagator(network, InferenceSettings.of(network, memory_interval=2, buffer_tokens=8, **changes))
    frames = tensors(video(10))[:, :, :32, :32]
    outside, most = [], []

    def outside_the_bank() -> int:
        gc.collect()
        living = sum(x.numel() for x in gc.get_objects() if isinstance(x, torch.Tensor))
        columns = [*bank._columns.values(), *([] if bank._augmented is None else [bank._augmented])]
        return living - sum(column.numel() for column in columns)

    for t in range(241):
        propagator.step(frames[t % 10], torch.from_numpy(first_mask()[:32, :32]) if t == 0 else None)
        bank = propagator.banks[0]
        most.append(bank.num_positions)
        if t in (80, 160, 240):
            outside.append(outside_the_bank())
    assert len(set(outside)) == 1
    assert max(most[40:100]) == max(most[100:160]) == max(most[160:])
    assert max(most) <= 6 * 4 + (40 if propagator.settings.long_term else 0)


def test_videos_without_frames_or_masks(network):
    assert list(predict_video(network, [], {})) == []
    assert not np.any(list(predict_video(network, video(3), {})))


def test_sizes_that_do_not_fit_are_named(network):
    with pytest.raises(DataError, match=r"mask of frame 0 has 69 x 50 pixels, the frame 70 x 50"):
        list(predict_video(network, video(), {0: first_mask()[:, 1:]}))
    frames = video()
    frames[2] = frames[2][1:]
    with pytest.raises(DataError, match="frame 2 has 70 x 49 pixels, the first one 70 x 50"):
        list(predict_video(network, frames, {0: first_mask()}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_intervall": 3}, "no inference setting 'memory_intervall'"),
        ({"memory_interval": 0}, "memory_interval=0"),
        ({"top_k": 0}, "top_k=0"),
        ({"long_term": True, "max_frames": 5, "min_frames": 5}, "long_term with min_frames=5"),
        ({"long_term": True, "max_frames": 9, "min_frames": 5, "max_tokens": 100}, "max_tokens=100"),
        ({"scales": ()}, "scales="),
    ],
)
def test_impossible_settings_are_refused(network, changes, message):
    with pytest.raises(ConfigError, match=message):
        InferenceSettings.of(network, **changes)
