"""The README's commands on data of one's own, run as they are written there, end in a report with numbers."""

from __future__ import annotations

import csv
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.data.folders import synthetic
from ovos_ray.run.here import fit_here

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

SHORTER = {
    "train": ["train.steps=4", "data.crop_size=64"],
    "sweep": ["train.steps=4", "data.crop_size=64", "seeds=0", "network.name=stcn-tiny", "--no-ray"],
}
"""Appended to what the README says, so that minutes become seconds; nothing of what it says is changed."""


def commands() -> list[list[str]]:
    """The words of the commands of the section, without the one that enters the environment."""
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("\n## On your data\n")[2]
    lines = [line.strip() for line in section.partition("\n## ")[0].splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line.startswith("ovos-ray ")]


def test_the_readmes_commands_end_in_a_report_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path = tmp_path / "mein Büro"
    tmp_path.mkdir()
    small = synthetic.SyntheticConfig(height=64, width=96, num_frames=8)
    synthetic.generate(tmp_path / "DAVIS/2017/trainval", seed=3, num_videos={"train": 4, "val": 2}, config=small)
    given = commands()
    assert [words[1] for words in given] == ["pack", "train", "predict", "evaluate", "sweep", "report"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    # `train` without a cluster: what it starts on Ray is tested elsewhere, and its steps are the same.
    monkeypatch.setattr("ovos_ray.on_ray.session.ray_session", lambda **_: nullcontext())
    monkeypatch.setattr("ovos_ray.on_ray.session.watching", lambda *_, **__: nullcontext())
    monkeypatch.setattr("ovos_ray.on_ray.session.mention_idle_gpus", lambda *_: None)
    monkeypatch.setattr("ovos_ray.on_ray.fit.fit", lambda request, **_: fit_here(request))
    for words in given:
        done = CliRunner().invoke(app, [*words[1:], *SHORTER.get(words[1], [])])
        assert done.exit_code == 0, (words, done.output[-3000:], done.exception)
        if words[1] == "sweep":
            told = shlex.split(done.output.strip().rpartition("\ncompare: ")[2])
            assert told == [
                *["ovos-ray", "report", "backward_strategy", "--tracking-uri"],
                f"sqlite:///{tmp_path}/mlflow.db",
            ]
    rows = list(csv.DictReader((tmp_path / "report" / "report.csv").open(encoding="utf-8")))
    scores = [float(row["jf_mean"]) for row in rows if row["jf_mean"]]
    assert len(scores) == 3, rows
    assert all(0 <= score <= 100 for score in scores)
    assert "nothing is scored yet" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
