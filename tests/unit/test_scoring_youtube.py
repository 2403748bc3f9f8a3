"""Scoring under the YouTube-VOS protocol: objects that come later, seen and unseen categories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scored_masks import disk, iou, make_youtube_masks, save

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.score.scoring import evaluate_folders


@pytest.fixture
def youtube(tmp_path: Path) -> tuple[Path, Path]:
    return make_youtube_masks(tmp_path)


def test_youtube_vos_averages_seen_and_unseen(youtube, tmp_path):
    pred, gt = youtube
    table = evaluate_folders(pred, gt, "youtube-vos", seen={"bird"}, num_processes=1)
    assert [(row.object_id, row.num_frames, row.seen) for row in table.rows] == [(2, 4, True), (7, 2, False)]
    bird = [iou(disk(12, 12 + 2 * t), np.roll(disk(12, 12 + 2 * t), 2, axis=1)) for t in range(1, 5)]
    summary = table.summary
    assert list(summary) == ["G", "J_s", "F_s", "J_u", "F_u"]
    assert summary["J_s"] == pytest.approx(100 * np.mean(bird))
    assert (summary["J_u"], summary["F_u"]) == (100.0, 100.0)
    assert summary["G"] == pytest.approx(np.mean([summary[key] for key in ("J_s", "F_s", "J_u", "F_u")]))
    assert table.headline()["g"] == summary["G"]
    train_meta = tmp_path / "train.json"
    train_meta.write_text(json.dumps({"videos": {"x": {"objects": {"1": {"category": "bird", "frames": []}}}}}))
    assert evaluate_folders(pred, gt, "youtube-vos", seen=train_meta, num_processes=1) == table
    header = table.to_csv().splitlines()[0]
    assert header.endswith("f_decay,category,seen")


def test_youtube_vos_without_seen_list_or_meta(youtube):
    pred, gt = youtube
    table = evaluate_folders(pred, gt, "youtube-vos", num_processes=1)
    assert "G" not in table.summary
    assert "--seen" in table.notes[-1]
    (gt / "meta.json").unlink()
    assert [
        (r.object_id, r.num_frames, r.j) for r in evaluate_folders(pred, gt, "youtube-vos", num_processes=1).rows
    ] == [(r.object_id, r.num_frames, r.j) for r in table.rows]


def test_why_g_is_not_there_is_said(youtube):
    pred, gt = youtube
    table = evaluate_folders(pred, gt, "youtube-vos", seen={"bird", "okapi"}, num_processes=1)
    assert table.notes == ("G is the mean over seen and unseen categories, and there are not both",)
    meta = json.loads((gt / "meta.json").read_text())
    del meta["videos"]["vid"]["objects"]["7"]["category"]
    (gt / "meta.json").write_text(json.dumps(meta))
    table = evaluate_folders(pred, gt, "youtube-vos", seen={"bird"}, num_processes=1)
    assert table.notes[0] == "1 of 2 objects have no category in meta.json, and are neither seen nor unseen"
    assert "G" not in table.summary
    assert table.summary["J_s"] == table.rows[0].j.mean


def test_void_is_no_object(youtube):
    pred, gt = youtube
    (gt / "meta.json").unlink()
    for path in (gt / "Annotations/vid").iterdir():
        mask = np.array(Image.open(path))
        mask[:2] = 255
        save(path, mask)
    assert [row.object_id for row in evaluate_folders(pred, gt, "youtube-vos", num_processes=1).rows] == [2, 7]


def test_objects_without_a_second_frame_are_counted_in_a_note(youtube):
    pred, gt = youtube
    meta = json.loads((gt / "meta.json").read_text())
    meta["videos"]["vid"]["objects"]["7"]["frames"] = ["00020"]
    (gt / "meta.json").write_text(json.dumps(meta))
    table = evaluate_folders(pred, gt, "youtube-vos", num_processes=1)
    assert [row.object_id for row in table.rows] == [2]
    assert table.notes[0].startswith("1 objects have no frame after their first")


def test_youtube_vos_needs_no_mask_of_unannotated_frames(youtube):
    pred, gt = youtube
    (pred / "Annotations/vid/00000.png").unlink()  # only the given mask of the first object is there
    assert len(evaluate_folders(pred, gt, "youtube-vos", num_processes=1).rows) == 2
    (pred / "Annotations/vid/00010.png").unlink()
    with pytest.raises(EvaluationError, match=r"00010\.png"):
        evaluate_folders(pred, gt, "youtube-vos", num_processes=1)
