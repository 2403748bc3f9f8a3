"""Scoring of folders: the official numbers, the rules of DAVIS by hand, and the table."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scored_masks import SIZE, iou, make_davis_masks, save, two_objects

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.metrics import COLUMNS
from ovos_ray.evaluate.score.scoring import evaluate_folders


@pytest.fixture
def davis(tmp_path: Path) -> tuple[Path, Path]:
    return make_davis_masks(tmp_path)


def test_objects_count_equally_without_first_and_last_frame(davis):
    pred, gt = davis
    save(pred / "bear/00000.png", np.zeros(SIZE))
    save(pred / "bear/00005.png", np.zeros(SIZE))
    table = evaluate_folders(pred, gt, "davis2017", num_processes=1)
    assert [(row.sequence, row.object_id, row.num_frames) for row in table.rows] == [
        ("bear", 1, 4), ("bear", 2, 4), ("swan", 1, 4), ("swan", 2, 4),
    ]  # fmt: skip
    expected = np.mean([iou(two_objects(t) == 1, np.roll(two_objects(t), 1, 1) == 1) for t in range(1, 5)])
    assert table.rows[0].j.mean == pytest.approx(100 * expected)
    assert table.rows[0].j == table.rows[2].j
    assert table.j == pytest.approx(np.mean([row.j.mean for row in table.rows]))
    assert table.jf == pytest.approx((table.j + table.f) / 2)
    assert {"J&F", "J MEAN", "J RECALL", "J DECAY", "F MEAN", "F RECALL", "F DECAY"} <= set(table.summary)


def test_davis2016_merges_objects_of_either_kind_of_file(davis, tmp_path):
    pred, gt = davis
    for t in range(6):
        for name in ("bear", "swan"):
            save(tmp_path / "binary" / name / f"{t:05d}.png", 255 * (two_objects(t) > 0), "L")
    tables = [evaluate_folders(pred, folder, "davis2016", num_processes=1) for folder in (gt, tmp_path / "binary")]
    assert tables[0].rows == tables[1].rows
    assert [row.object_id for row in tables[0].rows] == [1, 1]
    expected = np.mean([iou(two_objects(t) > 0, np.roll(two_objects(t), 1, 1) > 0) for t in range(1, 5)])
    assert tables[0].j == pytest.approx(100 * expected)


def test_void_is_background_and_missing_objects_score_zero(davis):
    pred, gt = davis
    for t in range(6):
        mask = two_objects(t)
        mask[:3] = 255
        save(gt / "bear" / f"{t:05d}.png", mask)
        save(pred / "bear" / f"{t:05d}.png", np.where(two_objects(t) == 1, 1, 0))
    table = evaluate_folders(pred, gt, "davis2017", sequences=["bear"], num_processes=1)
    assert [row.object_id for row in table.rows] == [1, 2]
    assert (table.rows[0].j.mean, table.rows[0].f.mean) == (100.0, 100.0)
    assert (table.rows[1].j.mean, table.rows[1].f.mean) == (0.0, 0.0)


def test_objects_that_appear_after_the_first_mask_are_not_counted(davis):
    pred, gt = davis
    later = two_objects(3)
    later[0:4, 0:4] = 3
    save(gt / "bear/00003.png", later)
    table = evaluate_folders(pred, gt, "davis2017", sequences=["bear"], num_processes=1)
    assert [row.object_id for row in table.rows] == [1, 2]


def test_sparse_annotations_score_annotated_frames_only(davis):
    pred, gt = davis
    for t in (1, 3, 4):
        (gt / "swan" / f"{t:05d}.png").unlink()
    table = evaluate_folders(pred, gt, "davis2017", sequences=["swan"], num_processes=1)
    assert {row.num_frames for row in table.rows} == {1}
    assert table.rows[0].j.mean == pytest.approx(100 * iou(two_objects(2) == 1, np.roll(two_objects(2), 1, 1) == 1))


def test_processes_give_the_same_table(davis):
    pred, gt = davis
    calls: list[tuple[int, int]] = []
    alone = evaluate_folders(pred, gt, "davis2017", num_processes=1)
    pooled = evaluate_folders(
        pred, gt, "davis2017", num_processes=2, progress=lambda done, total: calls.append((done, total))
    )
    assert pooled == alone
    assert calls[-1] == (8, 8)
    assert calls == sorted(calls)


def test_helpers_are_copies_only_where_no_thread_can_hold_a_lock(davis, tmp_path):
    if sys.version_info >= (3, 11):
        (tmp_path / "numpy.py").write_text("open('ran', 'w')\n")  # what a helper that is no copy looks for first
    code = f"""
import sys, threading
sys.path.remove("")
from ovos_ray.evaluate.score import frame_scores, scoring
assert frame_scores._context().get_start_method() == "fork"
alone = scoring.evaluate_folders({str(davis[0])!r}, {str(davis[1])!r}, "davis2017", num_processes=2)
assert alone == scoring.evaluate_folders({str(davis[0])!r}, {str(davis[1])!r}, "davis2017", num_processes=1)
stop = threading.Event()
threading.Thread(target=stop.wait).start()
threaded = frame_scores._context().get_start_method()
stop.set()
sys.modules["torch"] = sys
assert {{threaded, frame_scores._context().get_start_method()}} == {{"forkserver"}}
assert alone == scoring.evaluate_folders({str(davis[0])!r}, {str(davis[1])!r}, "davis2017", num_processes=2)
"""
    if sys.platform != "linux":
        pytest.skip("elsewhere helpers are never copies")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_errors_cross_the_process_border(davis):
    pred, gt = davis
    save(pred / "bear/00002.png", two_objects(2)[:-1])
    with pytest.raises(EvaluationError, match=r"00002\.png: 60 x 39 pixels.*60 x 40"):
        evaluate_folders(pred, gt, "davis2017", num_processes=2)


def test_csv_and_json(davis, tmp_path):
    table = evaluate_folders(*davis, "davis2017", num_processes=1)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert list(rows[0]) == ["sequence", "object", *COLUMNS]
    assert float(rows[1]["f_mean"]) == pytest.approx(table.rows[1].f.mean, abs=1e-6)
    table.write_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == table.to_csv()
    table.write_json(tmp_path / "scores.json")
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["summary"]["J&F"] == table.jf
    assert table.headline().items() >= {"jf": table.jf, "j": table.j, "f": table.f}.items()


def test_rendered_table_shows_every_object(davis):
    from rich.console import Console

    console = Console(width=120, file=io.StringIO())
    table = evaluate_folders(*davis, "davis2017", num_processes=1)
    console.print(table.render())
    text = console.file.getvalue()
    assert text.count("bear") == 2
    assert f"{table.j:.1f}" in text
    assert f"J&F {table.jf:.1f}" in text


def test_split_lists_say_what_must_be_there(tmp_path, davis):
    pred, _gt = davis
    root = tmp_path / "DAVIS"
    for name in ("bear", "swan", "train-only"):
        for t in range(4):
            save(root / "Annotations/480p" / name / f"{t:05d}.png", two_objects(t))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\nswan\n")
    (root / "ImageSets/2017/train.txt").write_text("train-only\n")
    assert len(evaluate_folders(pred, root, "davis2017", num_processes=1).rows) == 4
    for path in (pred / "swan").iterdir():
        path.unlink()
    (pred / "swan").rmdir()
    with pytest.raises(EvaluationError, match="1 sequences are not predicted: swan"):
        evaluate_folders(pred, root, "davis2017", num_processes=1)


def test_workers_import_neither_torch_nor_ray():
    code = "import sys, ovos_ray.evaluate.score.scoring as _; "
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'mlflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.shared
def test_official_values_from_folders(shared_root, tmp_path):
    reference = json.loads((shared_root / "osvos-masks/reference.json").read_text())
    masks = shared_root / "osvos-masks"
    table = evaluate_folders(
        masks, shared_root / "davis-mini", "davis2016", sequences=list(reference["davis2016"]), num_processes=1
    )
    names = sorted({key.rsplit("_", 1)[0] for key in reference["shifted"]})
    for name in names:
        files = sorted((masks / name).glob("*.png"))
        (tmp_path / name).mkdir()
        for here, later in itertools.pairwise(files):
            (tmp_path / name / here.name).symlink_to(later)
    shifted = evaluate_folders(tmp_path, masks, "davis2017", sequences=names, num_processes=1)
    found = {row.sequence: row for row in table.rows}
    found |= {f"{row.sequence}_{row.object_id}": row for row in shifted.rows}
    expected = reference["davis2016"] | reference["shifted"]
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        for measure in ("j", "f"):
            for statistic in ("mean", "recall", "decay"):
                value = getattr(getattr(found[key], measure), statistic)
                assert value == pytest.approx(100 * values[f"{measure.upper()}_{statistic}"], abs=1e-7)
