"""Credentials in the address of a tracking store: refused by every verb that takes one, and repeated by none."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app

ADDRESS = "http://user:s3cret@127.0.0.1:9"
COMMANDS = [
    ["train", "trainables.one_shot", f"tracking_uri={ADDRESS}", "data.shards=nowhere"],
    ["sweep", "search_spaces.smoke", f"tracking_uri={ADDRESS}", "data.shards=nowhere"],
    ["sweep", "search_spaces.smoke", f"tracking_uri={ADDRESS}", "data.shards=nowhere", "--dry-run"],
    ["show", "trainables.one_shot", f"tracking_uri={ADDRESS}"],
    ["show", "search_spaces.smoke", f"tracking_uri={ADDRESS}"],
    ["report", "study", "--tracking-uri", ADDRESS],
    ["sync", ".", "--tracking-uri", ADDRESS],
    ["doctor", "--tracking-uri", ADDRESS],
    ["submit", "--address", "http://127.0.0.1:9", "--", "train", "trainables.one_shot", f"tracking_uri={ADDRESS}"],
    ["submit", "--address", "http://127.0.0.1:9", "--", "report", "study", "--tracking-uri", ADDRESS],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:40])
def test_no_verb_repeats_credentials(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    said = result.output + str(result.exception) + caplog.text
    assert result.exit_code != 0
    assert "s3cret" not in said
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
