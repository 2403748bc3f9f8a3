"""What takes the place of a run holds the run's folder while it moves it: nobody else makes a run in it meanwhile."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faulty_s3 import serving
from runs import config_of

from ovos_ray import lease
from ovos_ray.config import override
from ovos_ray.errors import HeldError
from ovos_ray.run import lock
from ovos_ray.run.request import RunRequest
from ovos_ray.run.set_aside import set_aside
from ovos_ray.storage import Storage
from ovos_ray.train.run_folder import RunFolder

COMES = """
import sys
from ovos_ray import lease
from ovos_ray.run.lock import hold
from ovos_ray.storage import Storage
lease._BEAT_S, lease._SILENT_S = 0.05, 30.0
with hold(Storage(sys.argv[1]), "run", lambda event: print(event, flush=True)):
    print("holds it", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def test_who_comes_while_a_run_is_set_aside_waits_and_then_holds_the_new_folder(
    place: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_BEAT_S", 0.05)
    monkeypatch.setattr(lease, "_SILENT_S", 2.0)
    monkeypatch.setattr(lock, "_PATIENCE_HERE_S", 0.0)
    with ExitStack() as stack:
        storage = str(tmp_path / "runs") if place == "folder" else f"{stack.enter_context(serving()).uri}/runs"
        config = override(config_of(shards, tmp_path), {"storage": storage})
        run, move, others = RunFolder.of(config), Storage.move, list[subprocess.Popen[str]]()
        run.claim(config)

        def somebody_comes(self: Storage, *arguments: str) -> None:
            command, pipes = [sys.executable, "-c", COMES, run.storage.folder], subprocess.PIPE
            others.append(
                stack.enter_context(subprocess.Popen(command, stdin=pipes, stdout=pipes, text=True, bufsize=1))
            )
            stack.callback(others[0].kill)
            assert others[0].stdout is not None
            assert "makes run" in others[0].stdout.readline()
            move(self, *arguments)

        monkeypatch.setattr(Storage, "move", somebody_comes)
        aside = Storage(set_aside(RunRequest(config, "none", "run")))
        assert aside.exists("config.json")
        assert not aside.exists("lease")
        (other,) = others
        assert other.stdout is not None
        assert other.stdout.readline() == "holds it\n"
        assert not run.claimed
        with pytest.raises(HeldError, match=f"made by process {other.pid} on "), lock.hold(run.storage, "run", print):
            pytest.fail("two hold it")
        other.communicate("\n")
        assert not run.storage.exists("lease")


def test_who_has_waited_for_a_run_that_was_set_aside_makes_its_own(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.run import prepare

    config = config_of(shards, tmp_path)
    run, run_lock = RunFolder.of(config), prepare.run_lock

    def waited(request: RunRequest) -> Any:
        set_aside(request)
        return run_lock(request)

    monkeypatch.setattr(prepare, "run_lock", waited)
    prepare.make_run(RunRequest(config, "none", "run"), lambda request: run.finish({}))
    assert not run.differences(config)
    assert run.claimed
