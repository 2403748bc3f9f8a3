"""What MLflow holds after servers hang, fail and die: everything, once; and training never waited."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import FaultyConnection, MlflowServer, wait_for
from tracked import history, loss, the_run

from ovos_ray.track.leftovers import sync
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.sender import Sender
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import Spool

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connection(server: MlflowServer) -> Iterator[FaultyConnection]:
    connection = FaultyConnection(server.port)
    yield connection
    connection.close()


@pytest.mark.parametrize("fault", ["hang", "error", "lose"])
def test_fault_mid_run_delays_nothing_and_leaves_nothing_missing_or_double(
    server: MlflowServer,
    connection: FaultyConnection,
    tmp_path: Path,
    fault: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = Sink.open(connection.uri, "faults", fault, name=fault, spool=tmp_path)

    def log(steps: range) -> None:
        for step in steps:
            sink.log_metrics({"train/loss": loss(step), "train/iou": 0.5}, step)

    log(range(30))
    assert sink.flush(20)
    connection.mode = fault
    log(range(30, 60))
    wait_for(lambda: connection.faults > 0)
    # The sender has met the fault, and it lasts: a hanging request cannot end before the mode changes. Calls return.
    log(range(60, 90))
    sink.log_artifact(b"after", "note.txt")
    sink.set_tags({"late": "yes"})
    assert not sink.flush(0.5), "the fault was over"
    if fault != "lose":
        assert history(server.client(), the_run(server.client(), "faults", fault), "train/loss")[-1][0] == 29
    connection.mode = "pass"
    assert sink.finish(timeout_s=30)
    client = server.client()
    run = the_run(client, "faults", fault)
    assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(90)]
    points = client.get_metric_history(run.info.run_id, "train/iou")
    assert [p.step for p in sorted(points, key=lambda p: (p.timestamp, p.step))] == list(range(90)), (
        "as they were logged"
    )
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert run.data.tags["late"] == "yes"
    assert "View run" not in capsys.readouterr().out, "MLflow's own words would break the lines of progress"


def test_lost_answers_are_recognised_by_asking_the_server_not_by_the_database(
    server: MlflowServer, connection: FaultyConnection, tmp_path: Path
) -> None:
    """SQL stores drop an exact repetition themselves; other stores need not, so nothing may be sent twice."""
    spool = Spool(tmp_path, RunIdentity(connection.uri, "asking", "one", "x"))
    spool.append("metrics", {"step": 1, "values": {"a": 1.0}})
    sender = Sender(spool)
    connection.mode = "lose"
    for _ in range(3):
        with pytest.raises(Exception, match=r".+"):
            sender.drain()
    # Lost: the answers to creating the experiment, to creating the run, to the batch. Each was found to be there.
    assert connection.lost_batches == 1
    connection.mode = "pass"
    sender.drain()
    assert sender.complete
    assert connection.batches == 1
    assert history(server.client(), the_run(server.client(), "asking", "one"), "a") == [(1, 1.0)]


def test_server_absent_at_the_start_and_killed_mid_run(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    opened = time.time() - 0.01
    sink = Sink.open(f"http://127.0.0.1:{server.port}", "dead", "one", name="x", spool=tmp_path / "spool")
    for step in range(20):
        sink.log_metrics({"train/loss": loss(step)}, step)
    server.start()
    try:
        wait_for(lambda: sink.run_id is not None)
        sink.log_metrics({"train/loss": loss(20)}, 20)
        server.kill()
        for step in range(21, 40):
            sink.log_metrics({"train/loss": loss(step)}, step)
        assert not sink.finish(timeout_s=1)
        (unsent,) = sync(tmp_path / "spool")
        assert unsent.run_key == "one"
        assert unsent.num_records >= 19
        assert unsent.reason
        server.start()
        assert sync(tmp_path / "spool") == []
        client = server.client()
        run = the_run(client, "dead", "one")
        # It began when it was opened, before there was a server, and ended when it was finished.
        assert opened <= run.info.start_time / 1000 <= opened + 5
        assert run.info.start_time < run.info.end_time
        assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(40)]
        assert run.info.status == "FINISHED"
    finally:
        server.kill()
