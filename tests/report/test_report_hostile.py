"""A report of a hostile or damaged store: every name is text, every user's file stays, and one run costs one run."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from rich.console import Console
from synthetic_study import RawRun, curve, save_mask, square, write_study, write_videos

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.metrics import statistics as over_time
from ovos_ray.evaluate.score.table import ObjectScore, ScoreTable
from ovos_ray.report.build import build_report, compare_study
from ovos_ray.report.read import read_scores
from ovos_ray.report.render import latex_escape, markdown_escape
from ovos_ray.report.terminal import render_report

NAMES = [
    r"$\frac{$", "=HYPERLINK(1)", "+1", "-1", "@x", r"\input{/etc/passwd} ~ ^", "[/b]", "[red]x", "\x1b[2J\nnext",
    "<script>alert(1)</script>", "![x](http://host/y.png)", "a|b", "</svg>", "..",
]  # fmt: skip
EXPERIMENT = r"$\frac{$ [/b] <script>alert(1)</script> \input{x}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Runs, networks and sequences with such names, and settings that are no numbers."""
    folder = tmp_path_factory.mktemp("hostile")
    scores = {(name.replace("\n", " "), 1): (50.0 + place, 50.0) for place, name in enumerate(NAMES)}
    runs = [
        RawRun(name, {"note": name, "pretrain": None}, place % 2, scores, tags={"ovos.error": name}, curve=curve(40))
        for place, name in enumerate(NAMES)
    ]
    uri = f"sqlite:///{folder}/mlflow.db"
    write_study(uri, EXPERIMENT, runs)
    _rename(uri)
    return uri


def _rename(uri: str) -> None:
    """Puts the names where a configuration shows them: the store is another's, and holds what it likes."""
    import sqlite3

    with sqlite3.connect(uri.removeprefix("sqlite:///")) as base:
        for name in NAMES:
            where = "run_uuid in (select run_uuid from runs where name = ?)"
            base.execute(f"update params set value = ? where key = 'network.name' and {where}", (name, name))
            base.execute(f"update params set value = '[1, [2], {{}}]' where key = 'data.max_skip' and {where}", (name,))
            base.execute(f"update tags set value = '²' where key = 'ovos.seed' and {where}", (name,))


def test_every_name_is_text_in_every_file(store: str, tmp_path: Path) -> None:
    report = build_report(EXPERIMENT, store, tmp_path, attach=False)
    page, table, latex = report.html.read_text(), report.csv.read_text(), report.latex.read_text()
    assert r"$\frac{$" in page
    assert "<script>alert" not in page
    assert "next" in page
    for text in (page, table, latex, report.markdown.read_text(), (tmp_path / "paper.csv").read_text()):
        assert "\x1b" not in text
    for line in csv.reader(io.StringIO(table)):
        assert not any(cell[:1] in set("=+@-") and not cell[1:2].isdigit() for cell in line), line
    assert r"\input" not in latex.replace(r"\textbackslash{}input", "")
    lines = report.markdown.read_text().splitlines()
    assert not any("![x](" in line or "<script" in line.replace(r"\<", "") for line in lines)
    width = lines[0].count("|")
    assert all(line.replace(r"\|", "").count("|") == width for line in lines[: 2 + len(NAMES)])


def test_the_terminal_shows_markup_as_text(store: str) -> None:
    console = Console(width=200, file=io.StringIO(), force_terminal=True)
    for part in render_report(compare_study(EXPERIMENT, store)):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[/b]" in text
    assert "[red]x" in text
    assert "\x1b[2J" not in text


def test_attaching_fails_without_harm(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is not None
    (sweep,) = (r for r in client.search_runs([found.experiment_id]) if r.data.tags["ovos.kind"] == "sweep")
    path = Path(unquote(sweep.info.artifact_uri.removeprefix("file://")))
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no folder")
    with caplog.at_level(logging.WARNING):
        report = build_report(EXPERIMENT, store, tmp_path)
    assert report.html.is_file()
    assert "could not be attached" in caplog.text


def test_a_score_table_shows_names_as_text_and_its_csv_runs_nothing(tmp_path: Path) -> None:
    score = over_time(np.array([0.5, 0.7]))
    table = ScoreTable("davis2017", tuple(ObjectScore(name, 1, 2, score, score) for name in (*NAMES, "'=x")))
    console = Console(width=200, file=io.StringIO())
    console.print(table.render())
    assert "[/b]" in console.file.getvalue()  # type: ignore[attr-defined]
    table.write_csv(tmp_path / "scores.csv")
    cells = [line[0] for line in csv.reader(io.StringIO((tmp_path / "scores.csv").read_text()))]
    assert not any(cell[:1] in tuple("=+-@") for cell in cells)
    assert {name for name, _ in read_scores(tmp_path / "scores.csv")} == {*NAMES, "'=x"}, "and is read as it was"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "sequence,object\n",
        "sequence,object,j_mean,f_mean\na,1,nan,3\n",
        "\xff\xfe",
        "a\0b,c\n1",
        '"' + "x" * 200_000,
    ],
)
def test_a_damaged_table_of_scores_counts_as_absent(content: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(content.encode("latin-1"))
    assert not any(row for row in read_scores(tmp_path / "scores.csv").values())


def pictured(folder: Path) -> str:
    """A study whose predictions are at hand, of one sequence that can be shown."""
    write_videos(folder / "data", ["a", "b"])
    for name in "ab":
        for t in range(6):
            save_mask(folder / "masks" / name / f"{t:05d}.png", square(t * 8))
    settings: dict[str, Any] = {"evaluation.root": str(folder / "data"), "evaluation.protocol": "davis2017"}
    scores = {("a", 1): (50.0, 50.0), ("b", 1): (60.0, 60.0)}
    tags = {"ovos.predictions": str(folder / "masks")}
    uri = f"sqlite:///{folder}/mlflow.db"
    write_study(uri, "s", [RawRun("run", settings, 0, scores, tags=tags)])
    return uri


def test_a_report_removes_only_films_that_a_report_has_written(tmp_path: Path) -> None:
    uri, out = pictured(tmp_path), tmp_path / "out"
    (out / "films").mkdir(parents=True)
    for name in ("holiday.mp4", "a.mp4"):
        (out / "films" / name).write_bytes(b"mine")
    build_report("s", uri, out, sequences=["b", "a"], attach=False)
    assert (out / "films" / "holiday.mp4").read_bytes() == b"mine"
    assert (out / "films" / "a.mp4").read_bytes() == b"mine"
    assert (out / "films" / "b.mp4").stat().st_size > 100
    build_report("s", uri, out, sequences=["a"], attach=False)
    assert sorted(path.name for path in (out / "films").iterdir()) == ["a.mp4", "holiday.mp4"]


def test_a_manifest_of_another_removes_nothing_elsewhere(tmp_path: Path) -> None:
    uri, out = pictured(tmp_path), tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim.mp4").write_bytes(b"mine")
    listed = ["../../victim.mp4", str(tmp_path / "victim.mp4"), 3, None]
    (out / ".ovos-report.json").write_text(json.dumps({"films": listed}))
    build_report("s", uri, out, attach=False)
    assert (tmp_path / "victim.mp4").read_bytes() == b"mine"


def test_a_users_file_of_a_reports_name_is_not_written_over(tmp_path: Path) -> None:
    uri, out = pictured(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "report.md").write_text("my thesis")
    with pytest.raises(ConfigError, match=r"report\.md, which no report has written"):
        build_report("s", uri, out, attach=False)
    assert (out / "report.md").read_text() == "my thesis"


def test_a_study_whose_name_a_uri_must_spell_has_its_scores(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    write_study(uri, "two words & 5 %", [RawRun("run", {}, 0, {("a", 1): (50.0, 50.0)})])
    (row,) = compare_study("two words & 5 %", uri).rows
    assert list(row.finished[0].scores) == [("a", "1")]


@pytest.mark.parametrize("damage", ["cut", "other size", "gone", "no picture"])
def test_a_damaged_mask_costs_pictures_and_not_the_report(damage: str, tmp_path: Path) -> None:
    uri, mask = pictured(tmp_path), tmp_path / "masks" / "a" / "00003.png"
    if damage == "cut":
        mask.write_bytes(mask.read_bytes()[:40])
    elif damage == "other size":
        save_mask(mask, square(8)[:20, :30])
    elif damage == "gone":
        mask.unlink()
    else:
        mask.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    page = build_report("s", uri, tmp_path / "out", sequences=["a", "b"], attach=False).html.read_text()
    assert 'alt="b, as asked for: truth"' in page


def test_escapes_leave_plain_names_alone() -> None:
    for name in ("2-step · xmem-tiny", "lr 0.001", "a_b"):
        assert markdown_escape(name) == name
    assert latex_escape("a_b") == r"a\_b"
    assert latex_escape(r"\input{x}~^") == r"\textbackslash{}input\{x\}\textasciitilde{}\textasciicircum{}"
    assert ExperimentConfig().name == latex_escape(ExperimentConfig().name).replace("\\", "")
