"""Scoring of folders: the official numbers, the protocols' rules by hand, and every wrong input named."""

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
from PIL import Image

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.read_mask import read_mask
from ovos_ray.evaluate.scoring import evaluate_folders

SIZE = (40, 60)


def save(path: Path, mask: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.astype(np.uint8))
    if mode == "P":
        image.putpalette([c for i in range(256) for c in (i, 255 - i, (7 * i) % 256)])
    else:
        image = image.convert(mode)
    image.save(path)


def disk(y: int, x: int, radius: int = 8) -> np.ndarray:
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def two_objects(t: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[disk(12, 12 + 2 * t)] = 1
    mask[disk(28, 45 - 2 * t)] = 2
    return mask


@pytest.fixture
def davis(tmp_path: Path) -> tuple[Path, Path]:
    """Two sequences of six frames; predictions are the truth, one pixel to the right."""
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    for name in ("bear", "swan"):
        for t in range(6):
            save(gt / name / f"{t:05d}.png", two_objects(t))
            save(pred / name / f"{t:05d}.png", np.roll(two_objects(t), 1, axis=1))
    return pred, gt


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


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
    assert list(table.summary) == ["J&F", "J MEAN", "J RECALL", "J DECAY", "F MEAN", "F RECALL", "F DECAY"]


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


def test_errors_cross_the_process_border(davis):
    pred, gt = davis
    save(pred / "bear/00002.png", two_objects(2)[:-1])
    with pytest.raises(EvaluationError, match=r"00002\.png: 60 x 39 pixels.*60 x 40"):
        evaluate_folders(pred, gt, "davis2017", num_processes=2)


def test_csv_and_json(davis, tmp_path):
    table = evaluate_folders(*davis, "davis2017", num_processes=1)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    names = ["sequence", "object", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay"]
    assert list(rows[0]) == names
    assert float(rows[1]["f_mean"]) == pytest.approx(table.rows[1].f.mean, abs=1e-6)
    table.write_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == table.to_csv()
    table.write_json(tmp_path / "scores.json")
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["summary"]["J&F"] == table.jf
    assert table.headline() == {"jf": table.jf, "j": table.j, "f": table.f}


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


def bad_missing_folder(pred, gt):
    (pred / "bear").rename(pred / "baer")


def bad_missing_frame(pred, gt):
    (pred / "bear/00003.png").unlink()


def bad_names(pred, gt):
    for path in sorted((pred / "bear").iterdir()):
        path.rename(path.with_name(f"frame_{path.name}"))


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
    import re

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


@pytest.fixture
def youtube(tmp_path: Path) -> tuple[Path, Path]:
    """One video of five annotated frames: object 2 (a bird) from the start, object 7 (an okapi) from frame 10 on."""
    pred, gt = tmp_path / "pred/Annotations/vid", tmp_path / "valid/Annotations/vid"
    for t in range(5):
        mask = np.where(disk(12, 12 + 2 * t), 2, 0)
        if t >= 2:
            mask[disk(28, 45)] = 7
        save(gt / f"{5 * t:05d}.png", mask)
        save(pred / f"{5 * t:05d}.png", np.roll(np.where(mask == 2, 2, 0), 2, axis=1) + np.where(mask == 7, 7, 0))
    frames = [f"{5 * t:05d}" for t in range(5)]
    objects = {"2": {"category": "bird", "frames": frames}, "7": {"category": "okapi", "frames": frames[2:]}}
    (tmp_path / "valid/meta.json").write_text(json.dumps({"videos": {"vid": {"objects": objects}}}))
    return tmp_path / "pred", tmp_path / "valid"


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


def test_workers_import_neither_torch_nor_ray():
    code = "import sys, ovos_ray.evaluate.scoring; sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'mlflow')))"
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
