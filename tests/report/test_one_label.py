"""The study of one label per video: its runs, its small copies of videos, and its tables by hand."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
import pytest
from davis_folder import FRAMES, make_davis
from one_label import COLUMNS, METHODS, append, planned
from one_label_data import shrink
from one_label_table import (
    BEGIN,
    BEGIN_SWITCHES,
    END,
    END_SWITCHES,
    gather,
    make_table,
    read_rows,
    switches_of,
    tables_of,
    write_tables,
)

from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.run.checks import check_config


def test_shares_and_differences_are_of_the_same_seeds() -> None:
    scores = {
        "supervised-warm": {0: 80.0, 1: 40.0},
        "static-only": {0: 40.0, 1: 30.0, 2: 90.0},
        "one-shot": {0: 60.0, 1: 20.0},
    }
    lines = make_table(scores, {"one-shot": [1.0, 2.0]}, {"one-shot": "60"}).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| supervised-warm", "| static-only", "| one-shot"]
    one_shot = [cell.strip() for cell in lines[4].strip("|").split("|")]
    # Shares 75 and 50, differences +20 and -10; Student's 97.5 % quantile of one degree of freedom is 12.706.
    assert one_shot[1:3] == ["60", "60.0 20.0"]
    half = 12.706 * np.std([75, 50], ddof=1) / 2**0.5
    assert one_shot[4] == f"62.5 ± {half:.1f}"
    assert one_shot[5].startswith("+5.0 ± ")
    assert one_shot[6] == "-10.0"
    assert one_shot[7] == f"+1.5 ± {12.706 * 0.5:.1f}"
    assert "% of supervised-warm |" in make_table({**scores, "supervised-warm-layers": {0: 50.0}}, {}, {})
    more = make_table({**scores, "supervised-warm-layers": {0: 50.0, 2: 9.0, 3: 9.0}}, {}, {})
    assert "% of supervised-warm-layers |" in more, "the yardstick with more seeds"
    better = make_table({**scores, "supervised-half": {0: 80.0, 1: 41.0}}, {}, {})
    assert "% of supervised-half |" in better, "of as many seeds the better one"
    assert "| one-shot |  | 60.0 20.0 | 40.0 ± 254.1 | 120.0 |" in more


def test_a_small_copy_is_a_dataset_of_its_own(tmp_path: Path) -> None:
    make_davis(tmp_path / "davis")
    for folder in ("JPEGImages", "Annotations"):
        assert (tmp_path / "davis" / folder / "480p").is_dir()
    small = shrink(tmp_path / "davis", tmp_path / "small", num_frames=FRAMES - 1)
    assert shrink(small, tmp_path / "again") == small, "a small copy is used as it is"
    videos = list(open_dataset(small, layout="davis2016").videos("val"))
    assert [video.name for video in videos] == ["v0", "v1", "v2"]
    assert all(video.num_frames == FRAMES - 1 for video in videos)
    original = open_dataset(tmp_path / "davis", layout="davis2017").video("train", "v0").mask(0)
    assert np.array_equal(videos[0].mask(0) > 0, original > 0)


def test_lines_are_kept_as_they_come(tmp_path: Path) -> None:
    for value in ("1", "2"):
        append(tmp_path / "runs.csv", ("seed", "jf"), [(value, "50.00")])
    assert [row["seed"] for row in read_rows(tmp_path / "runs.csv")] == ["1", "2"]


@pytest.mark.slow
def test_every_planned_run_is_possible_and_reads_the_labels_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = functools.partial(synthetic.generate, num_videos={"train": 3, "select": 1, "val": 1})
    monkeypatch.setattr("one_label_data.synthetic.generate", few)
    arguments = argparse.Namespace(
        work=tmp_path, davis_train=None, networks=["xmem-tiny", "stcn-tiny"], steps=[20], seeds=[0, 1],
        methods=list(METHODS)[:5],
        then=list(METHODS)[5:], device="cpu", overrides=[],
    )  # fmt: skip
    of_further_labels = [name for name in METHODS if name.endswith(("-2", "-4", "-all")) and name != "layers-only-4"]
    runs = list(planned(arguments))
    assert len({run.key for run in runs}) == len(runs) == 4 * len(METHODS)
    for run in runs:
        check_config(run.config)
        labels = Path(run.config.data.shards[0]).name
        method = run.key[-1]
        assert method.startswith(("supervised", "oracle")) <= (labels == "all"), method
        assert (run.config.data.clip_start == "labels") == (method in of_further_labels), method
        kept = [video.label_frames for video in ShardIndex.load(run.config.data.shards[0]).videos]
        expected = {"first": 1, "2": 2, "4": 4, "all": 20}[labels]
        assert {len(frames) for frames in kept} == {expected}, method


def test_the_page_has_the_tables_of_the_kept_runs() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "beyond.md").read_text(encoding="utf-8")
    for begin, end, made in ((BEGIN, END, tables_of), (BEGIN_SWITCHES, END_SWITCHES, switches_of)):
        shown = page.partition(begin)[2].partition(end)[0]
        assert shown.strip() == made(root / "docs" / "studies" / "one_label")


def test_a_switch_is_compared_with_the_same_seeds_without_it(tmp_path: Path) -> None:
    key = ("davis2016", "xmem-tiny", "1200")
    runs = {"one-shot": {0: (40, 41), 1: (30, 33)}, "static-half": {0: (55, ""), 1: (49, ""), 2: (99, "")}}
    for method, seeds in runs.items():
        rows = [
            (*key, f"{seed}", method, f"{jf}", "", "", f"{ema}", "", "", "", "") for seed, (jf, ema) in seeds.items()
        ]
        append(tmp_path / "runs.csv", COLUMNS, rows)
    head, _, *lines = switches_of(tmp_path).splitlines()
    assert head == "| | davis2016, xmem-tiny, 1200 |"
    cells = dict(line.strip("| ").split(" | ") for line in lines)
    # Differences 15 and 19 (Student's 97.5 % quantile of one degree of freedom is 12.706), and 1 and 3.
    assert cells["`data.static_share`: walks after half of the steps"] == f"+17.0 ± {12.706 * 2:.1f} (2)"
    assert cells["`train.ema_decay=0.99`"] == f"+2.0 ± {12.706:.1f} (2)"
    assert len(cells) == 2, "nothing of what was not run"


def test_lines_of_several_machines_are_gathered_once(tmp_path: Path) -> None:
    columns = (*COLUMNS[:5], "step", "name", "value")
    key = ("synthetic", "xmem-tiny", "400", "0", "one-shot-traced")
    for folder, value in (("a", "0.4"), ("b", "0.6")):
        (tmp_path / folder).mkdir()
        rows = [(*key, "200", name, value) for name in ("reference_iou", "reference_identity", "loss")]
        append(tmp_path / folder / "curves.csv", columns, rows)
    for _ in range(2):
        gather([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
        kept = read_rows(tmp_path / "out" / "curves.csv")
        assert [row["value"] for row in kept] == ["0.4", "0.4", "0.6", "0.6"]
    line = tables_of(tmp_path / "out").splitlines()[-1]
    assert line.startswith("| synthetic, xmem-tiny, 400 steps, one-shot-traced |  |  |  | 50 (50) |")


def test_a_page_gets_the_tables_between_its_marks(tmp_path: Path) -> None:
    values = (
        "synthetic",
        "xmem-tiny",
        "400",
        "0",
        "one-shot",
        "50.00",
        "49.00",
        "51.00",
        "52.50",
        "60",
        "100",
        "cpu",
        "",
    )
    append(tmp_path / "runs.csv", COLUMNS, [values])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for _ in range(2):  # the same again changes nothing
        write_tables(tmp_path, page)
        lines = page.read_text(encoding="utf-8").splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        assert "old" not in lines
        assert "| one-shot | 60 | 50.0 | 50.0 |  |  |  | +2.5 |" in lines
