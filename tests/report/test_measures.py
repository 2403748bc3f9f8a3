"""One entry in `MEASURES` puts a number into every table there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovos_ray.evaluate.metrics import COLUMNS, COMPARED, MEASURES, statistics
from ovos_ray.evaluate.score.table import ObjectScore, ScoreTable

SUPPORT = Path(__file__).resolve().parents[1] / "support"
PROGRAM = """
import dataclasses, io, json
from ovos_ray.evaluate import metrics

metrics.MEASURES = tuple(dataclasses.replace(m, compared=m.compared or m.key == "f_decay") for m in metrics.MEASURES)
metrics.COMPARED = tuple(m for m in metrics.MEASURES if m.compared)

import numpy as np
from rich.console import Console
from synthetic_study import memory_run
from ovos_ray.evaluate.score.table import ObjectScore, ScoreTable
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.page import Content, render_page
from ovos_ray.report.runs import Study
from ovos_ray.report.tables import csv_table, latex_table, markdown_table
from ovos_ray.report.terminal import render_report

score = metrics.statistics(np.array([0.9, 0.8, 0.3]))
logged = ScoreTable("davis2017", (ObjectScore("a", 1, 3, score, score),)).headline()
numbers = {"final/jf": 50.0, "final/j": 50.0, "final/f": 50.0, "final/f_decay": 12.34}
run = memory_run("2-step", 0, {("a", 1): (50.0, 50.0)}, metrics=numbers)
comparison = compare(Study("s", "1", "uri", (run,)))
console = Console(width=120, file=io.StringIO())
for part in render_report(comparison):
    console.print(part)
page = render_page(Content(comparison, {}, (), (), {}, (), (), (), (), {}))
shown = (csv_table(comparison), markdown_table(comparison), latex_table(comparison), console.file.getvalue(), page)
print(json.dumps([sorted(logged), *shown]))
"""


def test_one_entry_more_is_one_column_more_everywhere() -> None:
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    logged, table, markdown, latex, terminal, page = json.loads(done.stdout)
    assert logged == sorted({"f_decay", *(measure.key for measure in COMPARED)})
    assert "f_decay_mean" in table.splitlines()[0]
    assert "12.34" in table.splitlines()[1]
    latex_name = r"$\mathcal{F}$ decay"
    for text, name in ((markdown, "F decay"), (latex, latex_name), (terminal, "F decay"), (page, "F decay %")):
        assert name in text
        assert "12.3" in text
    assert page.count(f'colspan="{6 + len(logged)}"') == 1


def test_every_measure_is_what_its_name_says() -> None:
    j, f = np.array([0.9, 0.8, 0.3]), np.array([0.2, 0.6, 0.4])
    by_hand = {  # a new measure has its line here
        "jf": (j.mean() + f.mean()) / 2,
        "j": j.mean(),
        "j_recall": 2 / 3,
        "j_decay": (0.9 + 0.8) / 2 - 0.3,  # quarters of three frames: the first two, and the last
        "f": f.mean(),
        "f_recall": 1 / 3,
        "f_decay": (0.2 + 0.6) / 2 - 0.4,
    }
    table = ScoreTable("davis2017", (ObjectScore("a", 1, 3, statistics(j), statistics(f)),))
    assert {measure.key: table.value(measure) for measure in MEASURES} == pytest.approx(by_hand)
    assert {measure.key for measure in COMPARED} >= {"jf", "j", "f"}
    assert set(COLUMNS) >= {"j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay"}
