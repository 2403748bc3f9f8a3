"""A tracking store that does not exist yet is made whole, however many begin it and whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

from ovos_ray.track.sender import connect
from ovos_ray.track.sqlite_store import sqlite_file

REPOSITORY = Path(__file__).resolve().parents[2]
MAKE = (
    "import sys; from ovos_ray.track.sender import connect; print(connect(sys.argv[1]).create_experiment(sys.argv[2]))"
)


def begin(uri: str, experiment: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-c", MAKE, uri, experiment], env=environment)


@pytest.mark.slow
def test_a_store_is_whole_whoever_is_killed_and_however_many_begin_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mlflow.db"
    uri = f"sqlite:///{path}"
    first = begin(uri, "killed")
    try:
        # Its tables are being made when the unfinished file has content.
        wait_for(lambda: any(file.stat().st_size for file in path.parent.glob(".mlflow.db.*.new")), 120)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert not path.exists(), "it was made before it could be killed"

    together = [begin(uri, name) for name in ("a", "b", "c")]
    assert [process.wait(240) for process in together] == [0, 0, 0]
    names = {experiment.name for experiment in connect(uri).search_experiments()}
    assert names >= {"a", "b", "c"}
    assert "killed" not in names
    assert len(list(path.parent.glob(".mlflow.db.*.new"))) == 1, "only the killed one leaves its unfinished file"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////data/mlflow.db", Path("/data/mlflow.db")),
        ("sqlite:///mlflow.db", Path("mlflow.db")),
        ("sqlite:///:memory:", None),
        ("sqlite:///", None),
        ("http://127.0.0.1:5000", None),
    ],
)
def test_the_file_of_a_store(uri: str, path: Path | None) -> None:
    assert sqlite_file(uri) == path
