"""Images, masks and videos that are damaged, enormous or not what they seem: refused by name, never packed."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from davis_folder import make_davis
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovos_ray.data import masks
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import read_video_file
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack

PLACE = b"51 deg 30 N, 0 deg 7 W"


def _jpeg(size: tuple[int, int] = (48, 80), mode: str = "RGB", seed: int = 0, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = PLACE.decode()
    return exif


def _empty_png(width: int, height: int, colour: int = 3) -> bytes:
    """A valid PNG of zeros, tiny on disk."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    line = zlib.compressobj(9)
    rows = b"".join([*(line.compress(bytes(width + 1)) for _ in range(height)), line.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", bytes(6)), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_places_and_people_in_a_jpeg_are_not_packed_and_its_pixels_are(tmp_path: Path) -> None:
    root = make_davis(tmp_path / "davis")
    path = root / "JPEGImages/480p/v0/00001.jpg"
    path.write_bytes(_jpeg(exif=_exif(), quality=90))
    assert PLACE in path.read_bytes()
    index = pack(open_dataset(root), tmp_path / "shards")
    assert index.num_reencoded == 0
    assert not any(PLACE in file.read_bytes() for file in (tmp_path / "shards").iterdir())
    stored = ShardReader(tmp_path / "shards").read("v0", [1])[0].jpeg
    assert np.array_equal(np.array(Image.open(io.BytesIO(stored))), np.array(Image.open(path)))
    assert np.array_equal(masks.decode_image(stored), np.array(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_jpeg_is_refused_where_a_mask_belongs_to_it(tmp_path: Path, orientation: int) -> None:
    root = make_davis(tmp_path / "davis")
    (root / "JPEGImages/480p/v0/00000.jpg").write_bytes(_jpeg(exif=_exif(orientation)))
    with pytest.raises(DataError, match=rf"v0/00000\.jpg: .*EXIF orientation {orientation}"):
        pack(open_dataset(root), tmp_path / "shards")
    with pytest.raises(DataError, match="EXIF orientation"):
        open_dataset(root).video("train", "v0").mask(0)


def test_frames_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    root = make_davis(tmp_path / "davis")
    frame = root / "JPEGImages/480p/v0/00001.jpg"
    frame.unlink()
    values = np.linspace(0, 40_000, 48 * 80).reshape(48, 80)
    Image.fromarray(values.astype(np.uint16)).save(frame.with_suffix(".png"))
    with pytest.raises(DataError, match=r"v0/00001\.png: image of mode I"):
        pack(open_dataset(root), tmp_path / "shards")


def test_an_opaque_grey_mask_with_alpha_is_read_and_a_transparent_one_refused(tmp_path: Path) -> None:
    grey = np.zeros((12, 20), np.uint8)
    grey[3:6, 4:9] = 255
    layers = [Image.fromarray(grey), Image.new("L", (20, 12), 255)]
    Image.merge("LA", layers).save(tmp_path / "bear.png")
    assert np.array_equal(masks.decode_mask(tmp_path / "bear.png"), grey // 255)
    layers[1].putpixel((2, 2), 0)
    Image.merge("LA", layers).save(tmp_path / "bear.png")
    with pytest.raises(DataError, match="mode LA that is transparent"):
        masks.decode_mask(tmp_path / "bear.png")


def _peak_kib(script: str, path: Path) -> int:
    """Runs a script in a process of its own, and returns the most memory it had."""
    script += "\nprint([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = _empty_png(13_000, 13_000)
    assert len(bomb) < 200_000
    (tmp_path / "bomb.png").write_bytes(bomb)
    script = (
        "import sys\n"
        "from ovos_ray.data import masks\n"
        "for read in (masks.decode_mask, masks.decode_image, masks.decode_binary_mask, masks.image_size):\n"
        "    try:\n"
        "        read(sys.argv[1])\n"
        "    except masks.DataError as error:\n"
        "        assert 'pixels' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(read)\n"
    )
    assert _peak_kib(script, tmp_path / "bomb.png") < 250 * 2**10


def test_the_largest_mask_allowed_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(_empty_png(8192, 8192))
    script = (
        "import sys\n"
        "from ovos_ray.data import masks\n"
        "mask = masks.decode_mask(sys.argv[1])\n"
        "assert mask.size == masks.MAX_PIXELS and masks.boxes(mask) == ()\n"
    )
    assert _peak_kib(script, tmp_path / "large.png") < 450 * 2**10, "a few bytes a pixel, not eight"


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"subsampling": 2, "quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(48, 80), (33, 47)])
def test_jpegs_are_decoded_to_the_pixels_of_another_library(
    size: tuple[int, int], mode: str, options: dict[str, object]
) -> None:
    jpeg = _jpeg(size, mode, exif=_exif(6), **options)
    expected = np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    assert np.array_equal(masks.decode_image(jpeg), expected)
    for kept in (len(jpeg) - 2, len(jpeg) // 2):
        with pytest.raises(DataError, match="image"):
            masks.decode_image(jpeg[:kept] if kept < len(jpeg) - 2 else jpeg[: len(jpeg) // 3])


def _video(path: Path, codec: str) -> None:
    av = pytest.importorskip("av")
    texture = np.random.default_rng(0).integers(0, 255, (96, 200, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for index in range(60):
            shown = np.ascontiguousarray(texture[:, index % 40 : index % 40 + 160])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.mp4"])
def test_videos_cut_short_or_damaged_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _video(path, "mpeg4")
    assert sum(1 for _ in read_video_file(path)) == 60
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    with pytest.raises(DataError, match=f"{name}: "):
        list(read_video_file(path))
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 40] = np.random.default_rng(1).bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=f"{name}: "):
        list(read_video_file(path))


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_image_runs_another_program(tmp_path: Path) -> None:
    """PIL hands PostScript to Ghostscript, whatever the file is called; here a stand-in says whether it did."""
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    (tmp_path / "mask.png").write_bytes(_EPS)
    script = (
        "import sys; from pathlib import Path; from ovos_ray.data import masks\n"
        "from ovos_ray.evaluate.score.read_mask import read_mask\n"
        "from ovos_ray.data.folders.drawn_masks import ColourMasks\n"
        "path = Path(sys.argv[1])\n"
        "for read in (masks.decode_image, masks.decode_binary_mask, masks.read_palette, masks.image_size, read_mask,\n"
        "             lambda path: ColourMasks({0: path}, {})(0)):\n"
        "    try:\n"
        "        read(path)\n"
        "    except masks.DataError.__mro__[1]:\n"
        "        continue\n"
        "    raise AssertionError(read)\n"
    )
    found = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", script, tmp_path / "mask.png"], check=True, env=found)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_video_opens_no_other_file(tmp_path: Path, text: str) -> None:
    _video(tmp_path / "other.mp4", "mpeg4")
    (tmp_path / "clip.mp4").write_text(text)
    with pytest.raises(DataError, match="cannot be decoded"):
        list(read_video_file(tmp_path / "clip.mp4"))


def test_what_few_decoders_know_is_not_decoded(tmp_path: Path) -> None:
    """MagicYUV's decoder wrote beyond its memory in FFmpeg up to 8.1.1 (CVE-2026-8461)."""
    _video(tmp_path / "clip.avi", "magicyuv")
    with pytest.raises(DataError, match="magicyuv, which is not read"):
        list(read_video_file(tmp_path / "clip.avi"))


def test_a_codec_that_nobody_knows_is_named(tmp_path: Path) -> None:
    _video(tmp_path / "clip.mkv", "mpeg4")
    whole = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(whole.replace(b"V_MPEG4", b"V_ZZZZ4"))
    with pytest.raises(DataError, match="unknown codec"):
        list(read_video_file(tmp_path / "clip.mkv"))


def _seeds() -> list[bytes]:
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 3:9] = 2
    found = [masks.encode_mask(mask), _jpeg((12, 20), exif=_exif()), _empty_png(7, 5)]
    for kind in ("PNG", "BMP", "WEBP", "GIF", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


SEEDS = [*_seeds(), _EPS]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_image_ends_in_an_unnamed_error(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    for read in (
        masks.decode_mask,
        masks.decode_image,
        masks.decode_binary_mask,
        masks.image_size,
        masks.jpeg_size,
        masks.require_upright,
        masks.read_palette,
    ):
        with contextlib.suppress(DataError):
            read(bytes(content))  # type: ignore[operator]
    masks.without_metadata(bytes(content))
