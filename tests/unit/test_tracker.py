"""A session for streams gives what `predict` writes, forgets what is removed, and stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from test_inference import TINY, first_mask, video

from ovos_ray import networks
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.evaluate.infer.inference import predict_video
from ovos_ray.evaluate.infer.tracker import Tracker, best_device


@pytest.fixture(params=TINY)
def network(request: pytest.FixtureRequest) -> networks.VOSNetwork:
    return networks.build(request.param, seed=1).eval()


def test_a_stream_equals_the_prediction_of_the_video_frame_by_frame(network):
    frames, later = video(9), np.where(first_mask() == 2, 9, 0).astype(np.uint8)
    tracker = Tracker(network, device="cpu", memory_interval=3, flip=True)
    found = []
    for t, frame in enumerate(frames):
        if t in (1, 5):
            tracker.add({1: first_mask(), 5: later}[t])
        found.append(tracker.step(frame))
    wanted = list(predict_video(network, frames, {1: first_mask(), 5: later}, memory_interval=3, flip=True))
    assert all(map(np.array_equal, found, wanted))
    assert tracker.ids == (1, 2, 9)
    assert not found[0].any()


def test_a_removed_object_is_gone_and_the_others_go_on_as_if_its_memory_had_not_been_there(network):
    frames = video(10)
    tracker = Tracker(network)
    tracker.add(first_mask())
    for frame in frames[:4]:
        tracker.step(frame)
    tracker.remove(2)
    masks = [tracker.predict(frame) for frame in frames[4:]]
    assert all(set(np.unique(one.mask)) <= {0, 1} and one.ids == (1,) for one in masks)
    propagator = tracker._runs[0].propagator
    values = propagator.banks[0]._columns["value"]
    lone = Tracker(network)
    lone.add(first_mask() == 1, [1])
    lone.step(frames[0])
    assert values.shape[1] == lone._runs[0].propagator.banks[0]._columns["value"].shape[1]
    tracker.remove(1)
    assert not tracker.step(frames[0]).any()
    assert propagator.banks == []
    tracker.add(first_mask())
    np.testing.assert_array_equal(tracker.step(frames[1]), first_mask())


def test_removing_one_of_a_group_leaves_the_memory_of_the_others_as_it_was(network):
    tracker = Tracker(network)
    tracker.add(first_mask())
    for frame in video(3):
        tracker.step(frame)
    (bank,) = tracker._runs[0].propagator.banks
    before = bank._columns["value"].clone()
    sensory = tracker._runs[0].propagator.state.sensory
    tracker.remove(1)
    torch.testing.assert_close(bank._columns["value"], before[:, before.shape[1] // 2 :], rtol=0, atol=0)
    if sensory is not None:
        torch.testing.assert_close(tracker._runs[0].propagator.state.sensory, sensory[:, 1:], rtol=0, atol=0)


def test_memory_is_bounded_however_long_the_stream(network):
    changes = {"max_frames": 4, "min_frames": 2, "num_prototypes": 8, "max_tokens": 60, "buffer_tokens": 8}
    tracker = Tracker(network, memory_interval=1, **changes)
    frames, sizes = video(8), []
    tracker.add(first_mask())
    for t in range(40):
        tracker.step(frames[t % 8])
        sizes.append(sum(bank.num_positions for bank in tracker._runs[0].propagator.banks))
    assert max(sizes) == max(sizes[:20])


def test_what_cannot_be_tracked_is_refused(network):
    tracker = Tracker(network)
    with pytest.raises(DataError, match=r"with objects \[300\]"):
        tracker.add(np.full((50, 70), 300))
    with pytest.raises(DataError, match=r"a mask of \[1, 2\], but ids=\[1\]"):
        tracker.add(first_mask(), [1])
    with pytest.raises(DataError, match="no object 5 is followed"):
        tracker.remove(5)
    tracker.add(np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match="mask of frame 0 has 4 x 4 pixels"):
        tracker.step(video(1)[0])
    with pytest.raises(ConfigError, match="no inference setting"):
        Tracker(network, memory=3)
    assert best_device().type in ("cuda", "mps", "cpu")


def test_frames_that_are_no_8_bit_colours_are_refused_and_pictures_taken(network):
    frame = video(1)[0]
    for wrong in (frame[..., 0], frame.astype(np.float32) / 255, np.dstack([frame, frame[..., :1]])):
        tracker = Tracker(network)
        tracker.add(first_mask())
        with pytest.raises(DataError, match=r"frame 0 has the shape .* and the type"):
            tracker.step(wrong)
    tracker.add(first_mask())
    np.testing.assert_array_equal(tracker.step(Image.fromarray(frame)), first_mask())
