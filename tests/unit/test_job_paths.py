"""Every path in a job's command that means another folder there is found, and its remedy can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.errors import ConfigError

GOOD = "storage=/r tracking_uri=http://host:5000"


@pytest.mark.parametrize(
    ("command", "named", "written"),
    [
        (f"train trainables.one_shot data.shards=here {GOOD}", "data.shards = here", ["data.shards={}/here"]),
        (
            "predict --checkpoint xmem --frames /f --mask 42=m.png --out /o",
            "--mask = 42=m.png",
            ["--mask", "42={}/m.png"],
        ),
        (
            "predict --checkpoint r/x --frames /f --mask /m.png --out /o",
            "--checkpoint = r/x",
            ["--checkpoint", "{}/r/x"],
        ),
        ("score runs/x evaluation.root=/d", "RUN = runs/x", ["{}/runs/x"]),
        ("score /x evaluation.also=a=d:train", "evaluation.also = a=d:train", ["evaluation.also=a={}/d:train"]),
        ("verify here", "SHARDS = here", ["{}/here"]),
    ],
)
def test_a_relative_path_is_named_and_the_remedy_can_be_pasted(
    command: str, named: str, written: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mein Büro"
    folder.mkdir()
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, ["submit", "--address", "http://127.0.0.1:1", "--", *command.split()]).exception
    assert isinstance(error, ConfigError)
    assert error.message.endswith(f"vanishes with it: {named}")
    told = shlex.split(str(error.remedy).partition("such as this one: ")[2])
    assert told == [word.format(folder) for word in written]


def test_names_of_models_and_buckets_are_no_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        "predict --checkpoint cutie-base-mega --frames /f --mask 42=/m.png --out s3://b/o",
        "score s3://b/runs/x evaluation.also=a=/d:train",
    ):
        error = CliRunner().invoke(app, ["submit", "--address", "http://127.0.0.1:1", "--", *command.split()]).exception
        assert "relative paths" not in str(error)
