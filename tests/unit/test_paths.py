"""Names and paths of others: what may become part of a path, where it may lead, and which folders may be replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovos_ray.errors import DataError
from ovos_ray.io import atomic_path, whole_folder
from ovos_ray.paths import below, checked_name, mark, note_of, require_disjoint, require_replaceable

HOSTILE = ["", " ", ".", "..", "../a", "/etc", "a/../b", "a//b", "a/", "a\\b", ".git", "a\x1b[31m", "a\n", "a\x7f",
           "a\u202eb", "\ud800", "x" * 256, None, 3, b"a", ["a"]]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("nested", [False, True])
def test_a_hostile_name_is_refused_with_its_source(name: object, nested: bool) -> None:
    with pytest.raises(DataError, match=r"^list\.txt: video ") as caught:
        checked_name(name, "video", "list.txt", nested=nested)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", ["bear", "dog-agility", "a b", "…", "视频", "00001", "[red]x", "=1", "a.b", "-a"])
def test_an_ordinary_name_stays_what_it_is(name: str) -> None:
    assert checked_name(name, "video", "list.txt") == name
    assert checked_name(f"{name}/{name}", "image", "list.txt", nested=True) == f"{name}/{name}"
    with pytest.raises(DataError, match="slash"):
        checked_name(f"{name}/{name}", "video", "list.txt")


@given(st.text())
@example("a/./b")
def test_an_accepted_name_leads_below_its_folder(name: str) -> None:
    try:
        accepted = checked_name(name, "image", "list.txt", nested=True)
    except DataError:
        return
    folder = Path("/base/out")
    path = Path(os.path.normpath(folder / accepted))
    assert path.parts[:3] == folder.parts
    assert path.relative_to(folder).parts == tuple(accepted.split("/"))


def test_a_path_that_a_link_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "out/inner").mkdir(parents=True)
    (tmp_path / "out/link").symlink_to(tmp_path / "victim")
    (tmp_path / "out/circle").symlink_to(tmp_path / "out/circle")
    assert below(tmp_path / "out", "inner", "new") == tmp_path / "out/inner/new"
    for parts in (("link",), ("link", "new"), ("..", "victim"), ("inner", ".."), ()):
        with pytest.raises(DataError, match="does not lie in"):
            below(tmp_path / "out", *parts)
    (tmp_path / "short").symlink_to(tmp_path / "out")
    assert below(tmp_path / "short", "inner").samefile(tmp_path / "out/inner")


def test_a_target_is_none_of_its_sources(tmp_path: Path) -> None:
    (tmp_path / "videos/v1").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "videos")
    require_disjoint(tmp_path / "out", [tmp_path / "videos", tmp_path / "outside"])
    for target in ("videos/v1", "videos", "videos/v1/out", ".", "link/v1", "out/../videos/v1"):
        with pytest.raises(DataError, match="which is read"):
            require_disjoint(tmp_path / target, [tmp_path / "videos/v1"])


def test_only_what_we_made_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    require_replaceable(out, "predictions")
    out.mkdir()
    require_replaceable(out, "predictions")
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="did not make it"):
        require_replaceable(out, "predictions")
    with pytest.raises(DataError, match="did not make it"), whole_folder(out, "predictions"):
        pass
    assert (out / "thesis.tex").read_text() == "mine"
    (out / "index.json").write_text("{}")
    for evidence in (("index.json",), ("index.json", "frames-*.parquet"), ("index.json", "frames-*.parquet", "*.tex")):
        with pytest.raises(DataError, match="did not make it"):
            require_replaceable(out, "predictions", *evidence)
    require_replaceable(out, "predictions", "index.json", "thesis*")
    mark(out, "predictions")
    require_replaceable(out, "predictions")
    with pytest.raises(DataError, match="did not make it"):
        require_replaceable(out, "shards")


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out, "predictions") as folder:
        (folder / "a").write_text("old")
        assert not out.exists()
    with pytest.raises(FileNotFoundError), whole_folder(out, "predictions") as folder:
        (folder / "no-folder/a").write_text("new")
    assert (out / "a").read_text() == "old"
    with whole_folder(out, "predictions") as folder:
        (folder / "b").write_text("new")
    assert sorted(path.name for path in out.iterdir()) == [".ovos-ray", "b"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_marker_outside_says_what_is_in_a_folder_only_while_it_is_whole(tmp_path: Path) -> None:
    out, marker = tmp_path / "out", tmp_path / ".ovos-ray/out"
    out.mkdir()
    (out / "theirs").write_text("theirs")
    with pytest.raises(DataError, match="did not make it"), whole_folder(out, "predictions", marker=marker):
        pass
    (out / "theirs").unlink()
    for note in ("first", "second"):
        with whole_folder(out, "predictions", marker=marker, note=note) as folder:
            (folder / "a").write_text(note)
        assert (os.listdir(out), (out / "a").read_text()) == (["a"], note)
        assert note_of(marker, "predictions") == note
    assert note_of(marker, "shards") is None


KILLED = """
import os, signal, sys
from ovos_ray import io
real, left = os.rename, int(sys.argv[2])
def rename(*paths):
    global left
    if left == 0: os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(*paths)
os.rename = rename
with io.whole_folder(sys.argv[1], "predictions") as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_replacing_loses_neither_folder(tmp_path: Path, renames: int) -> None:
    out = tmp_path / "out"
    with whole_folder(out, "predictions") as folder:
        (folder / "a").write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, out, str(renames)]).returncode == -9
    assert out.exists() == (renames == 0)
    with pytest.raises(RuntimeError, match="stop"), whole_folder(out, "predictions"):
        raise RuntimeError("stop")
    assert (out / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys\nfrom ovos_ray.io import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", killed, tmp_path / "a"]).returncode == -9
    assert len(os.listdir(tmp_path)) == 1
    with atomic_path(tmp_path / "a") as outer:
        outer.write_text("outer")
        with atomic_path(tmp_path / "a") as inner:
            inner.write_text("inner")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "outer"
