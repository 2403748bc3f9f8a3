from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovos_ray.data.masks import (
    DAVIS_PALETTE,
    ObjectBox,
    boxes,
    decode_binary_mask,
    decode_image,
    decode_mask,
    encode_jpeg,
    encode_mask,
    image_size,
    jpeg_size,
    read_palette,
)
from ovos_ray.errors import DataError, EvaluationError
from ovos_ray.evaluate.score.read_mask import read_mask


def _grey(values: list[list[int]], mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.array(values, np.uint8))
    if mode == "P":
        image.putpalette(DAVIS_PALETTE)
    image.convert(mode).save(buffer, "PNG") if mode != "P" else image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_palette_is_the_published_one() -> None:
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert [tuple(DAVIS_PALETTE[3 * i : 3 * i + 3]) for i in range(7)] == expected
    assert tuple(DAVIS_PALETTE[3 * 255 :]) == (224, 224, 192)
    assert len(DAVIS_PALETTE) == 768


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([[0, 255], [255, 0]], "L", [[0, 1], [1, 0]]),
        ([[0, 255], [255, 0]], "P", [[0, 1], [1, 0]]),
        ([[255, 255]], "L", [[1, 1]]),
        ([[0, 255]], "1", [[0, 1]]),
        ([[0, 1, 2, 7]], "P", [[0, 1, 2, 7]]),
        ([[0, 1, 2]], "L", [[0, 1, 2]]),
        ([[0, 3, 255]], "P", [[0, 3, 0]]),
        ([[0, 0]], "P", [[0, 0]]),
    ],
)
def test_mask_files_become_object_ids(values: list[list[int]], mode: str, expected: list[list[int]]) -> None:
    mask = decode_mask(_grey(values, mode))
    assert mask.dtype == np.uint8
    assert mask.tolist() == expected


def test_masks_survive_a_round_trip_whatever_their_ids() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 60, (17, 23)).astype(np.uint8)
    data = encode_mask(mask)
    assert np.array_equal(decode_mask(data), mask)
    assert encode_mask(mask) == data
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
    assert read_palette(data)[:9] == DAVIS_PALETTE[:9]
    with pytest.raises(DataError, match=r"expected \(H, W\) uint8"):
        encode_mask(mask[None])


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda: Image.new("RGB", (4, 4)), "mode RGB"),
        (lambda: Image.new("RGBA", (4, 4)), "mode RGBA"),
        (lambda: Image.fromarray(np.full((4, 4), 300, np.uint16)), "the id 300"),
        (lambda: Image.fromarray(np.array([[0, 17, 128, 255]], np.uint16)), "0, 17, 128, 255"),
        (lambda: Image.fromarray(np.array([[0, 17, 128, 255]], np.uint8)), "0, 17, 128, 255"),
        (lambda: Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)), "200 different values"),
    ],
)
def test_coloured_and_smoothed_masks_are_refused(tmp_path: Path, build, found: str) -> None:
    path = tmp_path / "mask.png"
    build().save(path)
    with pytest.raises(DataError, match=found) as error:
        decode_mask(path)
    assert str(path) in error.value.message
    assert re.search("PNG|number the objects", error.value.remedy or "")


@pytest.mark.parametrize("values", [[0, 1, 2, 7], [0, 255, 255, 0], [0, 0, 0, 0]])
def test_masks_of_sixteen_bits_hold_what_those_of_eight_do(tmp_path: Path, values: list[int]) -> None:
    read = []
    for kind in (np.uint8, np.uint16):
        path = tmp_path / f"{np.dtype(kind).name}.png"
        Image.fromarray(np.array([values] * 4, kind)).save(path)
        read.append((decode_mask(path).tolist(), read_mask(path).indices.tolist(), image_size(path)))
    assert (tmp_path / "uint16.png").read_bytes()[24] == 16, "bits a pixel"
    assert read[0] == read[1]
    assert read_palette(path) == DAVIS_PALETTE
    Image.fromarray(np.array([values] * 3 + [[256] * 4], np.uint16)).save(path)
    with pytest.raises(EvaluationError, match=r"uint16\.png: mask of mode I.* with the id 256"):
        read_mask(path)


def test_a_jpeg_mask_is_refused(tmp_path: Path) -> None:
    disc = (np.hypot(*np.mgrid[-32:32, -32:32]) < 20).astype(np.uint8) * 255
    Image.fromarray(disc).save(tmp_path / "mask.jpg")
    with pytest.raises(DataError, match="smoothed or compressed"):
        decode_mask(tmp_path / "mask.jpg")


def test_static_masks_are_cut_at_one_half() -> None:
    assert decode_binary_mask(_grey([[0, 127, 128, 255]])).tolist() == [[0, 0, 1, 1]]


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = encode_jpeg(rng.integers(0, 256, (64, 80, 3)).astype(np.uint8))
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_bytes(b"no image")
    for name in ("cut.jpg", "text.jpg", "absent.jpg"):
        for read in (decode_image, jpeg_size):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)
    cut_mask = encode_mask(rng.integers(0, 9, (50, 50)).astype(np.uint8))[:-400]
    with pytest.raises(DataError, match="damaged"):
        decode_mask(cut_mask)


def test_sizes_are_height_then_width() -> None:
    data = encode_jpeg(np.zeros((48, 64, 3), np.uint8))
    assert image_size(data) == jpeg_size(data) == (48, 64) == decode_image(data).shape[:2]
    assert jpeg_size(encode_mask(np.zeros((4, 6), np.uint8))) is None


def test_decoding_keeps_the_pixels_of_a_lossless_image(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "frame.png")
    assert np.array_equal(decode_image(tmp_path / "frame.png"), image)
    assert np.array_equal(decode_image((tmp_path / "frame.png").read_bytes()), image)


def test_boxes_agree_with_a_loop_over_pixels() -> None:
    mask = np.random.default_rng(2).choice(np.array([0, 2, 5], np.uint8), (12, 9), p=[0.9, 0.05, 0.05])
    expected = []
    for object_id in (2, 5):
        pixels = [(y, x) for y in range(12) for x in range(9) if mask[y, x] == object_id]
        ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
        expected.append(ObjectBox(object_id, min(xs), min(ys), max(xs) + 1, max(ys) + 1, len(pixels)))
    assert boxes(mask) == tuple(expected)
    assert boxes(np.zeros((3, 3), np.uint8)) == ()
