"""`ovos-ray evaluate` and `ovos-ray submission` as a user meets them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scored_masks import make_davis_masks, make_youtube_masks, two_objects

from ovos_ray.cli import app
from ovos_ray.data.masks import encode_jpeg, encode_mask
from ovos_ray.evaluate.infer.mask_archive import send_masks
from ovos_ray.evaluate.score import submission
from ovos_ray.evaluate.score.scoring import evaluate_folders
from ovos_ray.storage import Storage


@pytest.fixture
def ovos_ray(monkeypatch, capsys):
    """Runs a verb; returns exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ovos-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            app.run()
        return (exited.value.code or 0, *capsys.readouterr())

    return run


def test_evaluate_prints_the_table_and_writes_csv_and_json(tmp_path, ovos_ray):
    pred, gt = make_davis_masks(tmp_path)
    files = ["--csv", tmp_path / "s.csv", "--json", tmp_path / "s.json"]
    code, out, err = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, *files)
    table = evaluate_folders(pred, gt, "davis2017", num_processes=1)
    assert (code, err) == (0, "")
    assert f"J&F {table.jf:.1f}, J {table.j:.1f}, F {table.f:.1f}" in out
    assert out.count("bear") == 2
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [(row["sequence"], row["object"]) for row in rows] == [(r.sequence, str(r.object_id)) for r in table.rows]
    assert json.loads((tmp_path / "s.json").read_text())["summary"] == table.summary
    code, out, _ = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, "--brief", "--sequences", "swan")
    assert code == 0
    assert "bear" not in out.replace("predicted but not scored: bear", "")


def test_evaluate_says_what_is_wrong_and_exits_with_one(tmp_path, ovos_ray):
    pred, gt = make_davis_masks(tmp_path)
    (pred / "bear/00003.png").unlink()
    code, out, err = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, "--json", tmp_path / "s.json")
    assert (code, out) == (1, "")
    assert "1 of 4 masks of 'bear' are missing: 00003.png" in err
    assert "What to do:" in err
    assert not (tmp_path / "s.json").exists()
    for options in (["--protocol", "vos"], ["--seen", "meta.json"], ["--sequences", "bear,nothing"]):
        code, _, err = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, *options)
        assert code == 1
        assert "What to do:" in err


def test_evaluate_youtube_vos_with_seen_categories_and_meta(tmp_path, ovos_ray):
    pred, gt = make_youtube_masks(tmp_path)
    meta = tmp_path / "elsewhere.json"
    (gt / "meta.json").rename(meta)
    (tmp_path / "seen.txt").write_text("bird\n")
    options = ["--protocol", "youtube-vos", "--meta", meta, "--seen", tmp_path / "seen.txt"]
    code, out, _ = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, *options)
    assert code == 0
    expected = evaluate_folders(pred, gt, "youtube-vos", meta=meta, seen={"bird"}, num_processes=1).summary["G"]
    assert f"G {expected:.1f}, J_s" in out
    assert "okapi" in out
    _, named, _ = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, *options[2:])
    assert named == out, "no other protocol has a meta.json or seen categories"
    code, out, _ = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, *options[:4])
    assert code == 0
    assert "Note: G needs seen and unseen categories" in out
    code, _, err = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, *options[:3], tmp_path / "seen.txt")
    assert (code, "not a YouTube-VOS meta.json" in err) == (1, True)
    meta.rename(gt / "meta.json")
    code, out, _ = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt)
    assert (code, "youtube-vos, percent" in out) == (0, True), "nor lies one beside the masks of another"
    _, other, _ = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt, "--protocol", "davis2017")
    assert "youtube-vos, percent" not in other


def test_evaluate_needs_neither_torch_nor_ray(tmp_path):
    pred, gt = make_davis_masks(tmp_path)
    code = f"""
import sys
from ovos_ray.cli import app
sys.argv = ["ovos-ray", "evaluate", "--predictions", {str(pred)!r}, "--annotations", {str(gt)!r}]
try:
    app.run()
except SystemExit as done:
    assert not done.code
assert not {{"torch", "ray", "mlflow"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def archived(pred: Path, to: Path) -> Path:
    """Copies masks as a run in a bucket keeps them."""
    for video in sorted(path.name for path in pred.iterdir()):
        send_masks(pred, video, Storage(str(to)))
    return to


def test_evaluate_scores_archives_as_the_folder_they_were_made_of(tmp_path, ovos_ray):
    pred, gt = make_davis_masks(tmp_path)
    zips = archived(pred, tmp_path / "run/predictions")
    expected = ovos_ray("evaluate", "--predictions", pred, "--annotations", gt)
    assert (expected[0], "bear" in expected[1]) == (0, True)
    assert ovos_ray("evaluate", "--predictions", zips, "--annotations", gt) == expected
    assert ovos_ray("evaluate", "--predictions", f"file://{zips}", "--annotations", gt) == expected
    code, _, err = ovos_ray("evaluate", "--predictions", f"file://{zips.parent}", "--annotations", gt)
    assert (code, f"they are further down: file://{zips}" in err.replace("\n", "")) == (1, True)
    code, _, err = ovos_ray("evaluate", "--predictions", f"file://{gt}", "--annotations", gt)
    assert (code, "no archives of masks" in err, "What to do:" in err) == (1, True, True)


def test_only_the_archives_of_what_is_scored_are_fetched(tmp_path, ovos_ray):
    pred, gt = make_davis_masks(tmp_path)
    zips = archived(pred, tmp_path / "zips")
    (zips / "swan.zip").write_bytes(b"is not even read")
    options = ["--annotations", gt, "--sequences"]
    for place in (zips, f"file://{zips}"):
        code, out, err = ovos_ray("evaluate", "--predictions", place, *options, "bear")
        assert (code, "bear" in out, err) == (0, True, "")
        code, _, err = ovos_ray("evaluate", "--predictions", place, *options, "bear,swan")
        assert (code, f"{zips}/swan.zip: damaged" in err) == (1, True)
    (zips / "swan.zip").unlink()
    code, _, err = ovos_ray("evaluate", "--predictions", f"file://{zips}", *options, "bear,swan")
    assert (code, f"file://{zips}" in err, "swan" in err) == (1, True, True)


def test_who_gives_a_run_is_told_where_its_predictions_are(tmp_path, ovos_ray):
    pred, gt = make_davis_masks(tmp_path)
    run = tmp_path / "runs/mine"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    pred.rename(run / "predictions")
    code, _, err = ovos_ray("evaluate", "--predictions", run, "--annotations", gt)
    assert (code, f"there are predictions: {run}/predictions" in err.replace("\n", "")) == (1, True)
    assert ovos_ray("evaluate", "--predictions", run / "predictions", "--annotations", gt)[0] == 0


def test_evaluate_says_which_archive_is_missing_short_damaged_or_anothers(tmp_path, ovos_ray):
    pred, gt = make_davis_masks(tmp_path)
    (pred / "bear/00003.png").unlink()
    zips = archived(pred, tmp_path / "zips")
    options = ["--predictions", zips, "--annotations", gt]
    code, _, err = ovos_ray("evaluate", *options)
    assert (code, f"{zips}/bear: 1 of 4 masks of 'bear' are missing" in err) == (1, True)
    content = (zips / "bear.zip").read_bytes()
    (zips / "bear.zip").write_bytes((zips / "swan.zip").read_bytes())
    code, _, err = ovos_ray("evaluate", *options)
    assert (code, f"{zips}/bear.zip: 'swan/00000.png' in it" in err) == (1, True)
    (zips / "bear.zip").write_bytes(content[: len(content) // 2])
    code, _, err = ovos_ray("evaluate", *options)
    assert (code, f"{zips}/bear.zip: damaged" in err) == (1, True)
    (zips / "bear.zip").unlink()
    code, _, err = ovos_ray("evaluate", *options)
    assert (code, f"{zips}: 1 sequences are not predicted: bear" in err) == (1, True)


@pytest.fixture
def test_dev(tmp_path: Path) -> Path:
    """A DAVIS test-dev of two videos."""
    root = tmp_path / "DAVIS"
    for name in ("bear", "swan"):
        for t in range(6):
            path = root / f"JPEGImages/480p/{name}/{t:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(np.full((40, 60, 3), 90, np.uint8)))
        (root / f"Annotations/480p/{name}").mkdir(parents=True)
        (root / f"Annotations/480p/{name}/00000.png").write_bytes(encode_mask(two_objects(0)))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/test-dev.txt").write_text("bear\nswan\n")
    return root


def test_submission_writes_and_checks_a_zip(tmp_path, test_dev, monkeypatch, ovos_ray):
    small = submission.ServerBenchmark("davis2017", "test-dev", num_videos=2)
    monkeypatch.setitem(submission.BENCHMARKS, "davis2017-test-dev", small)
    pred, _ = make_davis_masks(tmp_path)
    out = tmp_path / "s.zip"
    options = ["--benchmark", "davis2017-test-dev", "--root", test_dev, "--out", out]
    code, text, _ = ovos_ray("submission", "--predictions", pred, *options)
    assert (code, out.is_file()) == (0, True)
    assert "12 masks of 2 videos" in text
    code, text, _ = ovos_ray("submission", *options)
    assert (code, "keeps every rule" in text) == (0, True)
    content = out.read_bytes()
    out.unlink()
    code, text, _ = ovos_ray("submission", "--predictions", archived(pred, tmp_path / "zips"), *options)
    assert (code, out.read_bytes() == content) == (0, True)
    out.unlink()
    (pred / "bear/00002.png").unlink()
    code, _, err = ovos_ray("submission", "--predictions", pred, *options)
    assert (code, "bear/00002.png: missing" in err, out.exists()) == (1, True, False)
    out.write_bytes(b"no zip")
    code, _, err = ovos_ray("submission", *options)
    assert (code, "no zip file" in err) == (1, True)


def test_submission_refuses_other_datasets_and_unknown_benchmarks(tmp_path, test_dev, ovos_ray):
    options = ["--root", test_dev, "--out", tmp_path / "s.zip", "--predictions", tmp_path]
    code, _, err = ovos_ray("submission", "--benchmark", "davis2017-test-dev", *options)
    assert (code, "2 videos in split 'test-dev', davis2017-test-dev has 30" in err) == (1, True)
    code, _, err = ovos_ray("submission", "--benchmark", "davis2018", *options)
    assert (code, "choose one of davis2016" in err) == (1, True)
