"""The rules without learning, by hand and as predictors."""

from __future__ import annotations

import cv2
import numpy as np

from ovos_ray.evaluate.infer.baselines import copy_first_mask, match_colours

BACKGROUND, RED, BLUE = (40, 120, 60), (220, 30, 30), (30, 40, 210)


def scene(t: int) -> tuple[np.ndarray, np.ndarray]:
    """A red and a blue box that move over a green background."""
    image = np.empty((48, 64, 3), np.uint8)
    image[:] = BACKGROUND
    mask = np.zeros((48, 64), np.uint8)
    for index, (colour, y, x) in enumerate([(RED, 5, 5 + 4 * t), (BLUE, 28, 45 - 4 * t)]):
        image[y : y + 14, x : x + 14] = colour
        mask[y : y + 14, x : x + 14] = (3, 9)[index]
    return image, mask


def test_copying_repeats_the_given_mask():
    frames = [scene(t)[0] for t in range(4)]
    masks = [p.mask for p in copy_first_mask(iter(frames), {1: scene(1)[1]})]
    assert not masks[0].any()
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, scene(1)[1])


def test_copying_lays_later_objects_over_earlier_ones():
    first, later = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    first[:4], later[2:6] = 1, 2
    predictions = list(copy_first_mask([np.zeros((8, 8, 3), np.uint8)] * 3, {0: first, 2: later}))
    np.testing.assert_array_equal(predictions[2].mask[:, 0], [1, 1, 2, 2, 2, 2, 0, 0])
    assert predictions[2].ids == (1, 2)


def test_colours_find_objects_that_moved():
    frames = [scene(t)[0] for t in range(6)]
    predictions = list(match_colours(iter(frames), {0: scene(0)[1]}))
    for t, prediction in enumerate(predictions):
        truth = scene(t)[1]
        interior = cv2.erode(truth, np.ones((9, 9), np.uint8)) > 0  # blurred edges are mixed colours
        assert (prediction.mask[interior] == truth[interior]).all()
        assert (prediction.mask == truth).mean() > 0.9
        assert prediction.ids == (3, 9)
    np.testing.assert_array_equal(predictions[0].mask, scene(0)[1])


def test_unseen_colours_go_to_the_nearest_seen_one():
    image, mask = scene(0)
    other = image.copy()
    other[5:19, 5:19] = (190, 60, 50)  # a darker red than any in the labelled frame
    prediction = list(match_colours([image, other], {0: mask}))[1]
    assert (prediction.mask[8:16, 8:16] == 3).all()


def test_objects_given_later_are_added_to_the_colours():
    frames, masks = [], []
    for t in range(5):
        image, mask = scene(t)
        if t < 2:  # the blue box enters later
            image[mask == 9], mask[mask == 9] = BACKGROUND, 0
        frames.append(image)
        masks.append(mask)
    later = np.where(masks[2] == 9, 9, 0).astype(np.uint8)
    predictions = list(match_colours(frames, {0: masks[0], 2: later}))
    for t, prediction in enumerate(predictions):
        assert (prediction.mask == masks[t]).mean() > 0.9
        assert (9 in prediction.ids) == (t >= 2)
