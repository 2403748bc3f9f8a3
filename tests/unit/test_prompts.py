"""Masks from boxes and clicks: pictures whose objects are known, and what `predict --box` makes of them."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.data.masks import encode_jpeg
from ovos_ray.errors import ConfigError, DataError, EvaluationError
from ovos_ray.label.prompts import Click, mask_from_box

SIZE = (120, 160)


def picture(*discs: tuple[int, int, int], scale: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Red discs (x, y, radius) on a bluish ground, both with noise; and where the discs are."""
    rng = np.random.default_rng(seed)
    height, width = SIZE[0] * scale, SIZE[1] * scale
    rows, columns = np.mgrid[:height, :width]
    truth = np.zeros((height, width), bool)
    for x, y, radius in discs:
        truth |= (columns + 0.5 - x * scale) ** 2 + (rows + 0.5 - y * scale) ** 2 <= (radius * scale) ** 2
    colours = np.where(truth[..., None], (190, 70, 60), (70, 110, 150)) + rng.normal(0, 18, (height, width, 3))
    return colours.clip(0, 255).astype(np.uint8), truth


def similarity(mask: np.ndarray, truth: np.ndarray) -> float:
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


@pytest.mark.parametrize("scale", [1, 9])
def test_the_object_in_the_box_is_found_at_full_size(scale: int) -> None:
    image, truth = picture((70, 60, 30), (140, 60, 12), scale=scale)
    box = [scale * value for value in (40, 30, 100, 90)]
    mask = mask_from_box(image, box)
    assert (mask.shape, mask.dtype) == (truth.shape, bool)
    truth[:, 110 * scale :] = False
    assert similarity(mask, truth) > 0.95


def test_clicks_correct_the_mask() -> None:
    image, truth = picture((50, 60, 22), (105, 60, 22))
    left, right = truth.copy(), truth.copy()
    left[:, 78:], right[:, :78] = False, False
    both = mask_from_box(image, (25, 35, 130, 85))
    assert similarity(both, truth) > 0.9
    away = mask_from_box(image, (25, 35, 130, 85), [Click(x, y, False) for x in (92, 105, 118) for y in (48, 60, 72)])
    assert similarity(away, left) > similarity(both, left) + 0.1
    assert not away[60, 105]
    more = mask_from_box(image, (25, 35, 78, 85), [Click(105, 60)])
    assert more[60, 105], "a click outside of the box widens it"
    assert similarity(more, truth) > 0.8


def test_the_same_box_gives_the_same_mask_in_any_thread() -> None:
    image, _ = picture((70, 60, 30))
    image = np.random.default_rng(1).integers(0, 256, image.shape).astype(np.uint8) // 2 + image // 2
    masks = [mask_from_box(image, (40, 30, 100, 90))]
    threads = [threading.Thread(target=lambda: masks.append(mask_from_box(image, (40, 30, 100, 90)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(masks) == 3
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    assert not np.array_equal(masks[0], mask_from_box(image, (40, 30, 100, 80))), "another box, another mask"


def test_any_box_gives_a_mask_or_says_what_to_do() -> None:
    image, truth = picture((80, 60, 40))
    assert similarity(mask_from_box(image, (-50, -50, 900, 900)), truth) > 0.9, "as wide as the frame"
    flat = np.full((50, 40, 3), 90, np.uint8)
    wide = np.random.default_rng(0).integers(0, 256, (1, 4000, 3)).astype(np.uint8)
    for picked in (flat, flat[:1], flat[:, :1], image, wide, wide.transpose(1, 0, 2)):
        for box in (
            (0, 0, 4000, 4000),
            (3, 0, 4, 1),
            (0, 0, 1, 1),
            (0, 0, 40, 50),
            (0, 0, 2, 2),
            (39, 49, 99, 99),
            (5, 5, 35, 45),
        ):
            with contextlib.suppress(DataError):
                assert mask_from_box(picked, box).shape == picked.shape[:2]
    for box in ((10, 10, 10, 40), (50, 60, 40, 90), (500, 500, 600, 600), (-9, -9, 0, 0)):
        with pytest.raises(DataError, match="no pixel of a frame of 160 x 120 lies in it"):
            mask_from_box(image, box)
    with pytest.raises(DataError, match="click 160,3: outside"):
        mask_from_box(image, (40, 30, 100, 90), [(160, 3, True)])
    with pytest.raises(DataError, match="no object was told from its background"):
        mask_from_box(image, (40, 30, 100, 90), prompter=lambda image, box, clicks: np.zeros(SIZE, bool))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames of a disc that moves to the right by ten pixels a frame; another one stands still."""
    (tmp_path / "clip").mkdir()
    for t in range(6):
        image, _ = picture((40 + 10 * t, 40, 20), (40, 95, 14), seed=t)
        (tmp_path / f"clip/{t:05d}.jpg").write_bytes(encode_jpeg(image))
    return tmp_path / "clip"


def predict(clip: Path, *words: str) -> str:
    command = ["predict", "--baseline", "copy", "--frames", str(clip), "--out", str(clip.parent / "out"), *words]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def ids(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_predict_starts_from_boxes_and_shows_the_mask_it_made_of_them(clip: Path) -> None:
    out = clip.parent / "out"
    words = ["--box", "3=1:50,20,90,60", "--box", "3=7:26,81,54,109"]
    output = predict(clip, *words)
    kept = out / "clip-00003-box.png"
    assert str(kept) in output.replace("\n", "")
    _, disc = picture((70, 40, 20))
    _, other = picture((40, 95, 14))
    assert similarity(ids(kept) == 1, disc) > 0.9
    assert similarity(ids(kept) == 7, other) > 0.9
    masks = [ids(path) for path in sorted((out / "clip").iterdir())]
    assert len(masks) == 6
    assert all(np.array_equal(mask, masks[3]) for mask in masks), "both ways, by a rule that copies the mask"
    stamp = (out / "clip/00000.png").stat().st_mtime_ns
    assert "there already" in predict(clip, *words)
    predict(clip, "--mask", f"3={kept}")
    assert (out / "clip/00000.png").stat().st_mtime_ns == stamp, "the mask beside the predictions is what they are from"
    predict(clip, "--box", "3=1:50,20,90,60")
    assert set(np.unique(ids(kept))) == {0, 1}
    kept.write_bytes(b"of somebody else")
    with pytest.raises(DataError, match="is no mask of a box written here"):
        predict(clip, *words)
    assert kept.read_bytes() == b"of somebody else"


def test_boxes_of_a_video_file(clip: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(clip.parent / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for path in sorted(clip.iterdir()):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(Image.open(path)), format="rgb24")))
        container.mux(stream.encode())
    predict(clip.parent / "film.mp4", "--box", "5=2:70,20,110,60", "--mask", f"0={_mask(clip.parent)}")
    _, disc = picture((90, 40, 20))
    assert similarity(ids(clip.parent / "out/film/00005.png") == 2, disc) > 0.85
    with pytest.raises(DataError, match="it has no frame 6"):
        predict(clip.parent / "film.mp4", "--box", "6=2:70,20,110,60")


def _mask(folder: Path) -> Path:
    Image.fromarray(np.eye(*SIZE, dtype=np.uint8)).save(folder / "mask.png")
    return folder / "mask.png"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "10,20,200,180"], "not OBJECT:x0,y0,x1,y1"),
        (["--box", "1:10,20,200"], "not OBJECT:x0,y0,x1,y1"),
        (["--box", "1:1.5,2,3,4"], "not OBJECT:x0,y0,x1,y1"),
        (["--box", f"1:{'9' * 5000},2,3,4"], "not OBJECT:x0,y0,x1,y1"),
        (["--box", "0:1,2,3,4"], "objects are 1 to 254"),
        (["--box", "255:1,2,3,4"], "objects are 1 to 254"),
        (["--box", "9=1:1,2,30,40"], "no frame '9'"),
        (["--box", "1:1,2,30,40", "--box", "00000=1:1,2,30,40"], "has a box in this frame already"),
        (["--box", "1:300,2,400,40"], "no pixel of a frame of 160 x 120"),
        (["--box", "1:20,20,60,60", "--mask", "MASK"], "frame 0 has both --mask and --box"),
    ],
)
def test_what_is_no_box_is_refused_before_anything_is_written(clip: Path, words: list[str], message: str) -> None:
    words = [str(_mask(clip.parent)) if word == "MASK" else word for word in words]
    with pytest.raises((ConfigError, DataError), match=message) as error:
        predict(clip, *words)
    assert error.value.remedy
    assert not (clip.parent / "out").exists()


def test_a_box_writes_nothing_where_predictions_of_others_are(clip: Path) -> None:
    out = clip.parent / "out"
    predict(clip, "--box", "1:20,20,60,60")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(EvaluationError, match="other weights or settings"):
        predict(clip, "--box", "1:26,81,54,109", "--baseline", "colour")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
