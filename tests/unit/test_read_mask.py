"""Mask files as they are stored: the same values as PIL reads, whatever the encoder did."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scored_masks import save, two_objects

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.score.read_mask import read_mask


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"bits": 2}, {"compress_level": 0}])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_masks_read_as_pil_reads_them(tmp_path, mode, options):
    mask = np.random.default_rng(0).integers(0, 4, (37, 53)).astype(np.uint8)
    image = Image.fromarray(mask)
    if mode == "P":
        image.putpalette(list(range(12)))
    else:
        options = {key: value for key, value in options.items() if key != "bits"}
    image.save(tmp_path / "m.png", **options)
    stored = read_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(stored.indices, mask)
    assert stored.palette == (mode == "P")


def test_changed_bytes_are_noticed(tmp_path):
    save(tmp_path / "m.png", two_objects(0))
    data = bytearray((tmp_path / "m.png").read_bytes())
    start = data.index(b"IDAT") + 20
    data[start] ^= 0x40
    (tmp_path / "m.png").write_bytes(data)
    with pytest.raises(EvaluationError, match="damaged"):
        read_mask(tmp_path / "m.png")


def predicted(filter_type: int, left: int, up: int, corner: int) -> int:
    """What a PNG row filter subtracts (PNG specification, section 9.2)."""
    if filter_type == 4:
        distance = [abs(left + up - corner - value) for value in (left, up, corner)]
        return (left, up, corner)[distance.index(min(distance))]
    return (0, left, up, (left + up) // 2)[filter_type]


def png(mask: np.ndarray, filters: list[int], colour_type: int, level: int) -> bytes:
    height, width = mask.shape
    rows = bytearray()
    for y in range(height):
        rows.append(filters[y])
        for x in range(width):
            left, up = (int(mask[y, x - 1]) if x else 0), (int(mask[y - 1, x]) if y else 0)
            corner = int(mask[y - 1, x - 1]) if x and y else 0
            rows.append((int(mask[y, x]) - predicted(filters[y], left, up, corner)) % 256)
    palette = bytes(range(256)) * 3 if colour_type == 3 else b""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)),
        *([(b"PLTE", palette)] if palette else []),
        (b"IDAT", zlib.compress(bytes(rows), level)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("filters", ["00000000", "12340123", "00410030", "00000004", "10000000", "44444444"])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_row_filters_are_undone(tmp_path, filters, colour_type):
    mask = np.random.default_rng(1).choice([0, 1, 2, 255], (8, 11)).astype(np.uint8)
    data = png(mask, list(map(int, filters)), colour_type, level=6)
    (tmp_path / "m.png").write_bytes(data)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")), mask)  # the encoder above is right
    stored = read_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(stored.indices, mask)
    assert stored.palette == (colour_type == 3)


@pytest.mark.parametrize("end", [40, -30])
def test_truncated_files_are_damaged(tmp_path, end):
    save(tmp_path / "m.png", two_objects(0), "L")
    (tmp_path / "m.png").write_bytes((tmp_path / "m.png").read_bytes()[:end])
    with pytest.raises(EvaluationError, match="damaged"):
        read_mask(tmp_path / "m.png")


def png_of(width: int, height: int, compressed: bytes, kind: bytes = b"\x08\x03\x00\x00\x00") -> bytes:
    chunks = [(b"IHDR", struct.pack(">II", width, height) + kind), (b"PLTE", bytes(768)), (b"IDAT", compressed)]
    chunks.append((b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def zeros(count: int) -> bytes:
    compressor = zlib.compressobj(9)
    return b"".join(compressor.compress(bytes(2**20)) for _ in range(count // 2**20)) + compressor.flush()


@pytest.mark.parametrize("kind", [b"\x08\x03\x00\x00\x00", b"\x10\x00\x00\x00\x00"])
@pytest.mark.parametrize(("side", "size"), [(60000, 0), (20000, 4 * 10**8), (10, 4 * 10**8)])
def test_a_mask_does_not_fill_the_memory_whatever_it_claims_or_expands_to(tmp_path, side, size, kind):
    (tmp_path / "m.png").write_bytes(png_of(side, side, zeros(size), kind))
    allowed = (
        contextlib.nullcontext() if side == 10 else pytest.raises(EvaluationError, match=r"m\.png: .*(pixels|large)")
    )
    tracemalloc.start()
    with allowed:
        read_mask(tmp_path / "m.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_grey_masks_with_a_constant_alpha_are_read_and_with_another_refused(tmp_path):
    grey, alpha = Image.fromarray(two_objects(0)), Image.new("L", (60, 40), 255)
    Image.merge("LA", (grey, alpha)).save(tmp_path / "m.png")  # as bear/00077.png of DAVIS 2016
    stored = read_mask(tmp_path / "m.png")
    assert not stored.palette
    np.testing.assert_array_equal(stored.indices, two_objects(0))
    alpha.putpixel((3, 3), 0)
    Image.merge("LA", (grey, alpha)).save(tmp_path / "m.png")
    with pytest.raises(EvaluationError, match="mode LA"):
        read_mask(tmp_path / "m.png")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12), st.integers(0, 400))
def test_whatever_a_file_holds_there_is_a_mask_or_a_named_error(tmp_path, changes, cut):
    save(tmp_path / "m.png", two_objects(0))
    data = bytearray((tmp_path / "m.png").read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    del data[len(data) - cut :]
    (tmp_path / "m.png").write_bytes(data)
    with contextlib.suppress(EvaluationError):
        assert read_mask(tmp_path / "m.png").indices.ndim == 2
