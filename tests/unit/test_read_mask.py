"""Mask files as they are stored: the same values as PIL reads, whatever the encoder did."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
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
