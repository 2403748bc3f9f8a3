"""Scoring: every wrong input is named, with its remedy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scored_masks import SIZE, make_davis_masks, save, two_objects

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.score.scoring import evaluate_folders


@pytest.fixture
def davis(tmp_path: Path) -> tuple[Path, Path]:
    return make_davis_masks(tmp_path)


def bad_missing_folder(pred, gt):
    (pred / "bear").rename(pred / "baer")


def bad_missing_frame(pred, gt):
    (pred / "bear/00003.png").unlink()


def bad_names(pred, gt):
    for path in sorted((pred / "bear").iterdir()):
        path.rename(path.with_name(f"frame_{path.name}"))


def bad_depth(pred, gt):
    (pred / "bear").rename(pred / "aside")
    (pred / "bear").mkdir()
    (pred / "aside").rename(pred / "bear" / "bear")


def bad_ids(pred, gt):
    save(pred / "bear/00003.png", np.where(two_objects(3) == 2, 7, two_objects(3)))


def bad_rgb(pred, gt):
    Image.open(pred / "bear/00003.png").convert("RGB").save(pred / "bear/00003.png")


def bad_antialiased(pred, gt):
    image = Image.fromarray(((two_objects(3) > 0) * 255).astype(np.uint8))
    image.resize((120, 80), Image.Resampling.BILINEAR).resize((60, 40), Image.Resampling.BILINEAR).save(
        pred / "bear/00003.png"
    )


def bad_two_valued_truth(pred, gt):
    for t in range(6):
        save(gt / "bear" / f"{t:05d}.png", 255 * (two_objects(t) > 0), "L")


def bad_two_valued_prediction(pred, gt):
    save(pred / "bear/00003.png", 255 * (two_objects(3) > 0), "L")


def bad_size(pred, gt):
    save(pred / "bear/00003.png", np.zeros((20, 30)))


def bad_damaged(pred, gt):
    path = pred / "bear/00003.png"
    path.write_bytes(path.read_bytes()[:100])


def bad_empty_first(pred, gt):
    save(gt / "bear/00000.png", np.zeros(SIZE))


def bad_too_short(pred, gt):
    for t in range(2, 6):
        (gt / "bear" / f"{t:05d}.png").unlink()


def bad_no_pngs(pred, gt):
    for path in (gt / "bear").iterdir():
        path.rename(path.with_suffix(".jpg"))


@pytest.mark.parametrize(
    ("spoil", "found", "remedy"),
    [
        (bad_missing_folder, r"not predicted: bear; there are baer, swan", "--sequences"),
        (bad_missing_frame, r"1 of 4 masks of 'bear' are missing: 00003\.png", "one for every annotated frame"),
        (bad_names, r"4 of 4 masks .* the folder has frame_00000\.png", "named as their frames"),
        (bad_depth, r"4 of 4 masks .* the folder has bear", "--predictions .*bear"),
        (bad_ids, r"bear/00003\.png: object ids 7 .* its objects are 1, 2", "with their ids"),
        (bad_rgb, r"bear/00003\.png: a mask of mode RGB", "palette"),
        (bad_antialiased, r"bear/00003\.png: object ids .* …", "anti-aliasing"),
        (bad_two_valued_truth, r"bear/00000\.png: a mask of 0 and 255", "--protocol davis2016"),
        (bad_two_valued_prediction, r"bear/00003\.png: object ids 255", "--protocol davis2016"),
        (bad_size, r"bear/00003\.png: 30 x 20 pixels.*60 x 40", "nearest neighbour"),
        (bad_damaged, r"bear/00003\.png: damaged", "again"),
        (bad_empty_first, r"bear/00000\.png: the first annotated frame shows no object", "leave"),
        (bad_too_short, r"bear: 2 annotated frames", "at least 3|annotate more"),
        (bad_no_pngs, r"bear: no PNG masks", "PNG files"),
    ],
)
def test_wrong_input_is_named_with_its_remedy(davis, spoil, found, remedy):
    spoil(*davis)
    with pytest.raises(EvaluationError, match=found) as caught:
        evaluate_folders(*davis, "davis2017", num_processes=1)
    assert caught.value.remedy is not None
    assert re.search(remedy, caught.value.remedy)


def test_antialiased_masks_of_davis2016(davis):
    pred, gt = davis
    bad_antialiased(pred, gt)
    with pytest.raises(EvaluationError, match=r"anti-aliased"):
        evaluate_folders(pred, gt, "davis2016", num_processes=1)


def test_folders_at_the_wrong_level(davis, tmp_path):
    pred, gt = davis
    with pytest.raises(EvaluationError, match="no such folder of predictions"):
        evaluate_folders(tmp_path / "nowhere", gt, "davis2017")
    with pytest.raises(EvaluationError, match=r"no folder per sequence in it, but loose masks \(00000\.png") as caught:
        evaluate_folders(pred / "bear", gt, "davis2017")
    assert "folder above" in str(caught.value)
    nested = tmp_path / "nested"
    nested.mkdir()
    pred.rename(nested / "Annotations")
    assert len(evaluate_folders(nested, gt, "davis2017", num_processes=1).rows) == 4
