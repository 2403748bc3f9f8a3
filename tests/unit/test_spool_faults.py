"""A spool on a full disk, a killed writer, a silent server: what is lost is nothing, or it is said."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracked import history, the_run

from ovos_ray.errors import ConfigError
from ovos_ray.track import provenance
from ovos_ray.track import spool as spool_module
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.servers import refuse_secrets, without_secrets
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import Spool

IDENTITY = RunIdentity("sqlite:////nowhere.db", "study", "run", "name")


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(512)):
            pass
    assert shutil.disk_usage(folder).free == 0
    return ballast


@pytest.mark.usefixtures("impatient")
def test_with_a_full_disk_everything_is_sent_from_memory(store: str, client: Any, small_disk: Path) -> None:
    sink = Sink.open(store, "full", "one", name="x", spool=small_disk / "tracking")
    assert sink.flush(60)
    fill(small_disk)
    for step in range(600):
        sink.log_metrics({"a": float(step)}, step)
    assert sink.finish()
    assert history(client, the_run(client, "full", "one"), "a") == [(step, float(step)) for step in range(600)]
    assert the_run(client, "full", "one").info.status == "FINISHED"


def test_a_full_disk_and_no_server_is_told_and_what_waits_is_written_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(small_disk / "tracking", IDENTITY)
    ballast = fill(small_disk)
    refused = 0
    for step in range(300):
        try:
            spool.append("metrics", {"step": step, "values": {"a": 1.0}})
        except OSError:
            refused += 1
    assert refused > 200
    ballast.unlink()
    spool.append("metrics", {"step": 300, "values": {"a": 1.0}})
    assert spool.num_held == 0
    assert [record.data["step"] for record in spool.records()] == list(range(301))
    assert "passed over" not in caplog.text, "no line was left half written"


@pytest.mark.usefixtures("impatient")
def test_finish_says_no_when_something_is_lost(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_MAX_HELD", 100)
    sink = Sink.open("http://127.0.0.1:9", "full", "two", name="x", spool=small_disk / "tracking")
    fill(small_disk)
    for step in range(3000):
        sink.log_metrics({"a": 1.0}, step)
    sink.log_artifact(bytes(4096), "a.bin")
    assert not sink.finish(timeout_s=0.5)
    assert not sink.finish()
    (line,) = [record.getMessage() for record in caplog.records if "are lost" in record.getMessage()]
    kept = sum(1 for _ in sink._spool.records())  # type: ignore[union-attr]
    assert line.startswith(f"{3000 + 2 + 1 - kept} tracking records or files"), "status twice, and the file"
    assert not list((small_disk / "tracking").glob("*/files/*")), "nothing is left of the copy"


def test_a_writer_that_dies_at_any_byte_leaves_the_records_before(tmp_path: Path) -> None:
    """What a killed process has written of a line is on the disk, and nothing after it."""
    spool = Spool(tmp_path, IDENTITY)
    for step in range(2):
        spool.append("metrics", {"step": step, "values": {"a": 1.0}})
    spool.close()
    whole = spool.records_path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        spool.records_path.write_bytes(whole[:cut])
        expected = (cut >= first) + (cut == len(whole))
        assert sum(1 for _ in Spool.load(spool.folder).records()) == expected
        again = Spool(tmp_path, IDENTITY)
        again.append("tags", {"after": "yes"})
        again.close()
        found = list(again.records())
        assert found[-1].data == {"after": "yes"}
        # A line whose end alone was missing is whole again.
        assert len(found) == 1 + (cut >= first - 1) + (cut >= len(whole) - 1)


_WRITER = """
import sys
from pathlib import Path
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.spool import Spool
spool = Spool(Path(sys.argv[1]), RunIdentity("sqlite:////nowhere.db", "study", "run", "name"))
step = 0
while True:
    spool.append("metrics", {"step": step, "values": {"a": 1.0}})
    print(step, flush=True)
    spool.keep(bytes(1000), "file.bin")
    step += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 50])
def test_a_killed_writer_leaves_every_record_but_the_last(tmp_path: Path, number: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(number)]
    os.kill(writer.pid, signal.SIGKILL)
    told += map(int, writer.stdout.read().split())
    writer.wait()
    steps = [record.data["step"] for record in Spool(tmp_path, IDENTITY).records()]
    assert steps in (told, [*told, len(told)]), "one more may be there: it was killed before it told of it"


@pytest.mark.parametrize("damage", [b"{}\n", b"null\n", b'{"kind": "metrics", "time_ms": 1, "data": {}}\n', b"\xff\n"])
@pytest.mark.usefixtures("impatient")
def test_a_malformed_record_blocks_none_of_the_later_ones(
    damage: bytes, store: str, client: Any, tmp_path: Path
) -> None:
    key = f"malformed {len(damage)} {damage[0]}"
    with Sink.open(store, "malformed", key, name="x", spool=tmp_path) as sink:
        sink.log_metrics({"a": 1.0}, 1)
        with open(sink._spool.records_path, "ab") as file:  # type: ignore[union-attr]
            file.write(damage)
        sink.log_metrics({"a": 2.0}, 2)
        assert sink.finish()
    assert history(client, the_run(client, "malformed", key), "a") == [(1, 1.0), (2, 2.0)]


@pytest.mark.usefixtures("impatient")
def test_a_model_that_cannot_be_made_blocks_none_of_the_later_records(store: str, client: Any, tmp_path: Path) -> None:
    with Sink.open(store, "malformed", "model", name="x", spool=tmp_path) as sink:
        sink.log_model(b"no weights", network="stcn-tiny", path="clash")
        sink.log_metrics({"a": 2.0}, 2)
        assert sink.finish()
    assert history(client, the_run(client, "malformed", "model"), "a") == [(2, 2.0)]
    assert list(tmp_path.glob("*/rejected.jsonl"))


@pytest.mark.parametrize("server", ["refuses", "silent"])
def test_a_server_that_was_never_there_is_waited_for_no_longer_than_promised(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clock of the machine: the sink's own waiting is counted."""
    import ovos_ray.track.sink as sink_module

    monkeypatch.setattr(sink_module, "_PATIENCE_WHEN_AWAY_S", 1.0)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if server == "silent":
        listener.listen(16)
    port = listener.getsockname()[1]
    sink = Sink.open(f"http://127.0.0.1:{port}", "absent", "one", name="x", spool=tmp_path)
    for step in range(2):
        sink.log_metrics({"a": 1.0}, step)
    # A thread that hangs longer than this session's own limit would fail the test; see pyproject.toml.
    assert not sink.finish(timeout_s=10_000)
    listener.close()


# ---------------------------------------------------------------- secrets

HOLDING = [
    "http://user:s3cret@host:5000",
    "https://s3cret@host",
    "http://:s3cret@host",
    "postgresql://mlflow:s3cret@database/mlflow",
    "http://host/?token=s3cret",
    "mysql+pymysql://host/db?password=s3cret",
]


@pytest.mark.parametrize("uri", HOLDING)
def test_credentials_in_the_address_are_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        Sink.open(uri, "study", "run", name="x", spool=tmp_path)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in without_secrets(uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "sqlite:///mlflow.db", "postgresql://user@host/db", "databricks", "/a/b@c", "s3://a/b@c"],
)
def test_addresses_without_credentials_are_taken(uri: str) -> None:
    refuse_secrets(uri)


def test_a_spool_is_its_owner_s_alone(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        root = tmp_path / "runs" / "one" / "tracking"
        sink = Sink.open("http://127.0.0.1:9", "study", "run", name="x", spool=root)
        sink.log_artifact(b"x", "a.txt")
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "b.txt").write_text("x")
        sink.log_artifact(tmp_path / "deep", "deep")
        spool = sink._spool
        assert spool is not None
        spool.confirm(spool.sent)
        spool.reject(next(spool.records()), "no reason")
        with spool.locked():
            pass
        sink.finish(timeout_s=0)
    finally:
        os.umask(old)
    modes = {path: path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")]}
    assert len(modes) > 9
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert (tmp_path / "runs" / "one").stat().st_mode & 0o777 == 0o755, "the run itself is as it was"


def test_a_remote_with_credentials_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVOS_GIT_COMMIT", raising=False)
    if shutil.which("git") is None:
        pytest.skip("no git")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://user:s3cret@host/repository.git"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    tags = provenance.provenance_tags(kind="trial")
    assert len(tags["ovos.git_commit"]) == 40
    assert "s3cret" not in json.dumps(tags)
