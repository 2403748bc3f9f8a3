"""What the terminal shows of names that others chose: the names, and nothing they could do to a terminal."""

from __future__ import annotations

import errno
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from davis_folder import make_davis
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from scored_masks import make_davis_masks
from typer import Exit
from typer.testing import CliRunner

from ovos_ray.cli import app as program
from ovos_ray.cli.console import console, errors, printable, progress_bar, tell
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import encode_jpeg, encode_mask
from ovos_ray.errors import StorageError, first_line
from ovos_ray.io import make_folder
from ovos_ray.packing.pack import pack
from ovos_ray.storage import Storage
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.spool import Spool

NAMES = ["[red]x", "[/b]", "[link=file:///etc]y[/link]", ":smile:", "a[1]b", "\\[bold]"]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal with colours receives."""
    output = io.StringIO()
    monkeypatch.setattr(console, "_file", output)
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", 200)
    return output


@pytest.mark.parametrize("name", NAMES)
def test_markup_in_names_is_shown_as_it_is(shown: io.StringIO, name: str) -> None:
    table = Table(name, title=name)
    table.add_row(name)
    console.print(table)
    assert shown.getvalue().count(name) == 3
    console.print(f"{name}: there already")
    tell("failed:", name, style="red")
    with progress_bar() as bar:
        bar.add_task(f"packing {name}", total=None)
        bar.refresh()
    assert shown.getvalue().count(name) >= 5


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    output = io.StringIO()
    console._file = output
    try:
        console.print(text)
        tell(text, text, style="")
    finally:
        console._file = None
    said = output.getvalue()
    assert not any((ord(letter) < 32 and letter not in "\n\t") or 127 <= ord(letter) < 160 for letter in said)
    assert not any("\ud800" <= letter <= "\udfff" or letter in "\u202e\u2066" for letter in said)
    said.encode()


def test_ordinary_text_stays_what_it_is() -> None:
    for text in ("Größe 3 × 4 … ± 2", "视频", "a\tb\nc", "J&F 92.1 %"):
        assert printable(text) == text
    assert printable("\x1b[31m\x07") == "\\x1b[31m\\x07"


def clip(folder: Path, name: str) -> list[str]:
    (folder / name).mkdir(parents=True)
    for t in range(3):
        (folder / name / f"{t:05d}.jpg").write_bytes(encode_jpeg(np.full((32, 48, 3), 40 * t, np.uint8)))
    (folder / "m.png").write_bytes(encode_mask(np.eye(32, 48, dtype=np.uint8)))
    return ["--frames", str(folder / name), "--mask", str(folder / "m.png"), "--out", str(folder / "out")]


@pytest.mark.parametrize("name", ["[b]", "[red]x"])
def test_predict_verify_and_evaluate_show_such_names_and_do_their_work(tmp_path: Path, name: str) -> None:
    done = CliRunner().invoke(program.app, ["predict", "--baseline", "copy", *clip(tmp_path / "clip", name)])
    assert (done.exit_code, name in done.output) == (0, True)

    davis = make_davis(tmp_path / "davis")
    for kind in ("JPEGImages", "Annotations"):
        (davis / kind / "480p/v0").rename(davis / kind / "480p" / name)
    (davis / "ImageSets/2017/train.txt").write_text(f"{name}\nv1\n")
    pack(open_dataset(davis), tmp_path / "shards", labels="first", split="train")
    done = CliRunner().invoke(program.app, ["verify", str(tmp_path / "shards")])
    assert (done.exit_code, "every row is good" in done.output) == (0, True)

    pred, truth = make_davis_masks(tmp_path)
    for folder in (pred, truth):
        shutil.move(folder / "bear", folder / name)
    paths = ["--predictions", str(pred), "--annotations", str(truth), "--csv", str(tmp_path / "s.csv")]
    done = CliRunner().invoke(program.app, ["evaluate", *paths])
    assert (done.exit_code, name in done.output, (tmp_path / "s.csv").is_file()) == (0, True, True)


@pytest.mark.parametrize("verb", ["sync", "doctor", "submit"])
def test_names_of_spools_and_files_are_text_to_the_verbs_of_a_cluster(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("[/b]", "[red]x"):
        spool = Spool(tmp_path / "runs/tracking", RunIdentity("http://evil.example:9", name, name, name))
        spool.records_path.write_text('{"kind": "tags", "time_ms": 1, "data": {"a": "b"}}\n')
    (tmp_path / "[red]\x1b[2J.token").write_text("s3cret")
    arguments = {
        "sync": ["sync", "runs"],
        "doctor": ["doctor"],
        "submit": ["submit", "--address", "http://127.0.0.1:1", "--", "verify", "[/b]\x1b[2J"],
    }[verb]
    output = io.StringIO()
    for where in (console, errors):
        monkeypatch.setattr(where, "_file", output)
    monkeypatch.setattr("sys.argv", ["ovos-ray", *arguments])
    with pytest.raises(SystemExit):
        program.run()
    shown = {"sync": "[/b], [/b]: 1 records", "doctor": "[red]\\x1b[2J.token", "submit": "[/b]\\x1b[2J"}[verb]
    assert shown in output.getvalue()
    assert "\x1b" not in output.getvalue()


def test_an_error_shows_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    output = io.StringIO()
    monkeypatch.setattr(errors, "_file", output)
    arguments = ["ovos-ray", "predict", "--baseline", "copy", "--out", str(tmp_path / "out")]
    arguments += ["--frames", str(tmp_path / "[/b]\x1b[31m"), "--mask", str(tmp_path / "no.png")]
    monkeypatch.setattr("sys.argv", arguments)
    (tmp_path / "no.png").write_bytes(b"")
    with pytest.raises(SystemExit) as caught:
        program.run()
    assert caught.value.code == 1
    assert "[/b]\\x1b[31m: no such folder or file" in output.getvalue()


def test_scores_are_written_before_anything_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class _Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "no space left on device")

    pred, truth = make_davis_masks(tmp_path)
    monkeypatch.setattr(console, "_file", _Full())
    paths = ["--predictions", str(pred), "--annotations", str(truth), "--csv", str(tmp_path / "s.csv")]
    CliRunner().invoke(program.app, ["evaluate", *paths, "--json", str(tmp_path / "s.json")])
    console._buffer.clear()  # what could not be printed
    assert (tmp_path / "s.csv").is_file()
    assert (tmp_path / "s.json").is_file()


def test_an_error_of_others_is_told_in_a_line_and_without_words_by_its_kind() -> None:
    assert first_line(OSError("no route\nto the host")) == "no route"
    assert first_line(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (errno.EROFS, "the right to write"),
        (errno.EACCES, "the right to write"),
        (errno.ENOSPC, "make room"),
        (errno.ENOTDIR, "is a file"),
    ],
)
def test_what_a_disk_refuses_is_said_with_a_remedy(fault: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(errors, "_file", output)

    def fail() -> None:
        raise OSError(fault, "no", "/a/[b]")

    monkeypatch.setattr(program, "app", fail)
    with pytest.raises(SystemExit) as caught:
        program.run()
    assert caught.value.code == 1
    assert "/a/[b]: no" in output.getvalue()
    assert said in output.getvalue()
    fault = errno.EBADF  # of a disk no more than of a mistake here
    with pytest.raises(OSError, match="/a"):
        program.run()


def test_a_file_in_the_way_of_a_folder_and_a_store_of_no_known_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(StorageError, match="gs4://bucket/runs: Unrecognized filesystem"):
        Storage("gs4://bucket/runs")


def test_ctrl_c_says_how_to_go_on_and_an_exit_of_a_verb_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(errors, "_file", output)
    monkeypatch.setattr("sys.argv", ["ovos-ray", "verify", "shards"])
    for raised, code, said in ((KeyboardInterrupt(), 130, "interrupted; the same command goes on"), (Exit(7), 7, "")):

        def stopped(*_: object, raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr("ovos_ray.data.shards.verify.verify", stopped)
        output.truncate(output.seek(0))
        with pytest.raises(SystemExit) as caught:
            program.run()
        assert caught.value.code == code
        assert output.getvalue().startswith(said)
        assert bool(output.getvalue()) is bool(said)
