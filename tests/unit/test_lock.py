"""Who may train a run: one at a time; `test_lease.py` has the bucket's."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from runs import config_of

from ovos_ray.errors import DataError, HeldError, OvosError
from ovos_ray.io import exclusive
from ovos_ray.run import lock
from ovos_ray.storage import Storage
from ovos_ray.study.expand import expand
from ovos_ray.study.here import run_plain
from ovos_ray.study.space import SearchSpace


def test_a_lock_that_is_a_link_empties_no_file_of_the_users(tmp_path: Path) -> None:
    """In a folder of a stranger's, whose run is gone on with."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(DataError, match="is a link"), lock.hold(Storage(str(tmp_path / "run")), "run", print):
        pytest.fail("it is held")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which no file can be made")
def test_a_lock_that_cannot_be_made_is_an_error_of_the_file_system() -> None:
    with pytest.raises(FileNotFoundError, match="/proc/self/lock"), exclusive("/proc/self/lock"):
        pytest.fail("it is held")


def test_a_study_that_cannot_be_run_leaves_nothing_behind_and_takes_nothing_away(shards: Path, tmp_path: Path) -> None:
    space = SearchSpace(name="none", trainable="none", axes={"method.backward": ("2-step", "1-step")}, seeds=(0,))
    (tmp_path / "work").mkdir()
    config = config_of(shards, tmp_path / "work/runs", **{"data.max_objects": 0})
    trials, _ = expand(space, config)
    with pytest.raises(OvosError, match="max_objects"):
        run_plain(space, trials)
    assert not list((tmp_path / "work").iterdir())

    def cannot_be_run() -> None:
        with pytest.raises(OvosError, match="max_objects"):
            run_plain(space, trials)

    folder = Path(trials[0].config.storage)
    folder.mkdir(parents=True)
    cannot_be_run()
    assert sorted(path.name for path in folder.iterdir()) == ["lock"], "a folder of the user's stays"
    (folder / "lock").unlink()
    folder.rmdir()
    folder.parent.rmdir()
    with lock.hold(Storage(str(folder)), "study", print):
        (folder / "theirs").touch()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "theirs"]


LEAVES = """
import sys
from ovos_ray.run.lock import hold
from ovos_ray.storage import Storage
with hold(Storage(sys.argv[1]), "study", lambda event: print(event, flush=True)):
    print("holds it", flush=True)
    sys.stdin.readline()
"""


def test_who_waits_for_a_folder_that_is_removed_holds_the_one_that_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_HERE_S", 0.0)
    folder = str(tmp_path / "runs/study")
    storage, command = Storage(folder), [sys.executable, "-c", LEAVES, folder]
    with ExitStack() as stack:
        with lock.hold(storage, "study", print):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            other: subprocess.Popen[str] = stack.enter_context(subprocess.Popen(command, **pipes))
            stack.callback(other.kill)
            assert other.stdout is not None
            assert "waiting: process" in other.stdout.readline()
        assert other.stdout.readline() == "holds it\n"
        with pytest.raises(HeldError, match=f"made by process {other.pid} on "), lock.hold(storage, "study", print):
            pytest.fail("two hold it")
        other.communicate("\n")
