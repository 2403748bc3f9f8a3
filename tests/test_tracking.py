"""What MLflow holds after servers hang, fail and die and processes are killed: everything, once."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ovos_ray.config import ExperimentConfig, TrainConfig, digest
from ovos_ray.track import mlflow_sink
from ovos_ray.track.mlflow_sink import Sink, sync
from ovos_ray.track.provenance import provenance_tags
from ovos_ray.track.sender import Sender, resolve_tracking_uri
from ovos_ray.track.spool import RunIdentity, Spool


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for all tests: its first use costs seconds of migrations."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="session")
def client(store: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_sink, "_SEND_INTERVAL_S", 0.1)
    monkeypatch.setattr(mlflow_sink, "_MAX_BACKOFF_S", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def the_run(client: Any, experiment: str, key: str) -> Any:
    """The only run with this key."""
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.`ovos.run_key` = '{key}'")
    assert len(runs) == 1
    return runs[0]


def history(client: Any, run: Any, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


def loss(step: int) -> float:
    return 1 / (step + 1)


def test_run_holds_metrics_on_the_step_axis_parameters_tags_and_config(store: str, client: Any, tmp_path: Path) -> None:
    config = ExperimentConfig(seed=3, train=TrainConfig(steps=77), note="n" * 1200)
    with Sink.open(store, "basic", "one", name="2-step seed 3", tags={"ovos.kind": "trial"}, spool=tmp_path) as sink:
        sink.log_config(config)
        for step in range(0, 60, 20):
            sink.log_metrics({"train/loss": loss(step), "train/iou": 0.5}, step)
        sink.log_metrics({"val/jf": math.nan}, 40)
        sink.log_artifact(b"sequence,object\n", "scores/scores.csv")
        sink.log_dataset("davis", "d" * 64, source="/data/shards", profile='{"labels": 12}')
    run = the_run(client, "basic", "one")
    assert history(client, run, "train/loss") == [(0, loss(0)), (20, loss(20)), (40, loss(40))]
    assert math.isnan(client.get_metric_history(run.info.run_id, "val/jf")[0].value)
    assert (run.info.run_name, run.info.status) == ("2-step seed 3", "FINISHED")
    assert run.data.tags["ovos.digest"] == digest(config)
    assert (run.data.tags["ovos.seed"], run.data.tags["ovos.kind"]) == ("3", "trial")
    assert (run.data.params["train.steps"], run.data.params["method.backward"]) == ("77", "2-step")
    assert [len(run.data.params[key]) for key in ("note", "note.1", "note.2")] == [500, 500, 200]
    stored = client.download_artifacts(run.info.run_id, "config.json", str(tmp_path))
    assert json.loads(Path(stored).read_text())["train"]["steps"] == 77
    assert [f.path for f in client.list_artifacts(run.info.run_id, "scores")] == ["scores/scores.csv"]
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("davis", "d" * 36)


def test_artifacts_lie_beside_the_database_not_in_the_current_folder(
    store: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Sink.open(store, "place", "one", name="x", spool=tmp_path / "spool") as sink:
        sink.log_artifact(b"x", "a.txt")
    folder = Path(store.removeprefix("sqlite:///")).parent
    assert client.get_experiment_by_name("place").artifact_location == (folder / "mlruns" / "place").as_uri()
    assert [p.name for p in tmp_path.iterdir()] == ["spool"]


def test_relative_sqlite_paths_are_fixed_where_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_tracking_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_tracking_uri(f"sqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"
    assert resolve_tracking_uri("http://host:5000") == "http://host:5000"


def test_trial_nests_under_the_sweep_even_when_the_sweep_comes_later(store: str, client: Any, tmp_path: Path) -> None:
    child = Sink.open(store, "nested", "child", name="c", parent_key="parent", spool=tmp_path)
    child.log_metrics({"a": 1.0}, 1)
    assert not child.finish(timeout_s=2)
    assert [u.run_key for u in sync(tmp_path)] == ["child"]
    Sink.open(store, "nested", "parent", name="p", spool=tmp_path).finish()
    assert sync(tmp_path) == []
    parent, run = the_run(client, "nested", "parent"), the_run(client, "nested", "child")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_resumed_run_has_no_point_twice_and_keeps_its_history(store: str, client: Any, tmp_path: Path) -> None:
    for number, steps in enumerate((range(60), range(40, 100))):
        # A new spool each time: the second process may run on another machine.
        sink = Sink.open(store, "resume", "one", name="x", spool=tmp_path / str(number))
        for step in steps:
            sink.log_metrics({"train/loss": loss(step)}, step)
        assert sink.finish()
    run = the_run(client, "resume", "one")
    assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(100)]
    assert "ovos.points_that_differ_after_resume" not in run.data.tags


def test_points_that_differ_after_a_resume_keep_the_first_value_and_are_counted(
    store: str, client: Any, tmp_path: Path
) -> None:
    for offset in (0.0, 1.0):
        with Sink.open(store, "differ", "one", name="x", spool=tmp_path) as sink:
            for step in range(3):
                sink.log_metrics({"a": step + offset}, step)
    run = the_run(client, "differ", "one")
    assert history(client, run, "a") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert run.data.tags["ovos.points_that_differ_after_resume"] == "3"


def test_parameter_changed_by_a_resume_is_told_in_a_tag(store: str, client: Any, tmp_path: Path) -> None:
    for steps in (10, 20):
        Sink.open(store, "changed", "one", name="x", params={"train.steps": steps}, spool=tmp_path).finish()
    run = the_run(client, "changed", "one")
    assert run.data.params["train.steps"] == "10"
    assert run.data.tags["ovos.changed.train.steps"] == "20"


def test_record_the_server_refuses_is_kept_aside_and_the_rest_arrives(store: str, client: Any, tmp_path: Path) -> None:
    sink = Sink.open(store, "refused", "one", name="x", spool=tmp_path)
    sink.log_metrics({"good": 1.0}, 1)
    sink.log_metrics({"not&allowed": 1.0}, 1)
    sink.log_metrics({"good": 2.0}, 2)
    assert sink.finish()
    assert history(client, the_run(client, "refused", "one"), "good") == [(1, 1.0), (2, 2.0)]
    (rejected,) = tmp_path.glob("*/rejected.jsonl")
    assert "not&allowed" in rejected.read_text()


def test_failed_and_interrupted_runs_end_as_such(store: str, client: Any, tmp_path: Path) -> None:
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), Sink.open(store, "ended", status, name="x", spool=tmp_path):
            raise error
        assert the_run(client, "ended", status).info.status == status


def test_training_process_killed_mid_run_continues_its_own_run(store: str, client: Any, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys, time
        from pathlib import Path
        from ovos_ray.track.mlflow_sink import Sink
        start, end, kill = map(int, sys.argv[1:])
        assert "mlflow" not in sys.modules
        sink = Sink.open({store!r}, "killed", "one", name="x", spool=Path({str(tmp_path)!r}))
        for step in range(start, end):
            sink.log_metrics({{"train/loss": 1 / (step + 1)}}, step)
        if kill:
            sink.flush(kill / 10)
            for step in range(end, end + 20):
                sink.log_metrics({{"train/loss": 1 / (step + 1)}}, step)
            os.kill(os.getpid(), signal.SIGKILL)
        assert sink.finish(timeout_s=60)
    """)
    kills = []
    # Killed before the server knew anything, killed after it knew the first part, then finished.
    for arguments in (("0", "30", "1"), ("30", "60", "600"), ("50", "100", "0")):
        kills.append(subprocess.run([sys.executable, "-c", script, *arguments], timeout=120, check=False).returncode)
    assert kills == [-signal.SIGKILL, -signal.SIGKILL, 0]
    run = the_run(client, "killed", "one")
    assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(100)]
    assert run.info.status == "FINISHED"


def test_best_network_comes_back_as_an_mlflow_model(store: str, client: Any, tmp_path: Path) -> None:
    import mlflow.pyfunc
    import numpy as np
    from safetensors.torch import save_file

    from ovos_ray import networks
    from ovos_ray.evaluate.inference import predict_video

    network = networks.build("stcn-tiny", seed=3)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    with Sink.open(store, "model", "one", name="x", spool=tmp_path / "spool") as sink:
        sink.log_model(tmp_path / "network.safetensors", network="stcn-tiny", memory_interval=2)
    (tmp_path / "network.safetensors").unlink()

    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40], mask[20:40, 40:60] = 1, 2
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(f"runs:/{the_run(client, 'model', 'one').info.run_id}/model")
    assert model.metadata.signature.inputs.input_names() == ["frames", "mask"]
    masks = model.predict({"frames": frames, "mask": mask})["masks"]
    expected = np.stack(list(predict_video(network.eval(), frames, {0: mask}, memory_interval=2)))
    assert masks.dtype == np.uint8
    assert np.array_equal(masks, expected)
    other = np.stack(list(predict_video(networks.build("stcn-tiny", seed=4).eval(), frames, {0: mask})))
    assert not np.array_equal(masks, other)
    stored = Path(store.removeprefix("sqlite:///")).parent / "mlruns" / "model"
    assert [p.name for p in stored.rglob("*") if p.suffix in (".pkl", ".pth", ".pt")] == []


# ---------------------------------------------------------------- a real server behind a connection that fails


class FaultyConnection:
    """A proxy before a real MLflow server. Modes: pass, hang, error, lose (carried out, answer never arrives)."""

    def __init__(self) -> None:
        self.mode = "pass"
        self.target = 0
        self.batches = 0
        self.lost_batches = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.mode == "hang":
                    time.sleep(3)
                    return
                if proxy.mode == "error":
                    self.send_error(500)
                    return
                connection = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=20)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                try:
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                except OSError:
                    self.send_error(502)
                    return
                proxy.batches += "log-batch" in self.path
                if proxy.mode == "lose" and self.command == "POST" and "search" not in self.path:
                    proxy.lost_batches += "log-batch" in self.path
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - names http.server looks for

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class MlflowServer:
    """A real server process that can be killed and started again on the same store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = f"server --backend-store-uri sqlite:///{self.folder}/m.db --artifacts-destination {self.folder}/a"
        command += f" --host 127.0.0.1 --port {self.port} --workers 1"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command.split()],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.3)
        raise TimeoutError("the MLflow server did not start")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connection(server: MlflowServer) -> Iterator[FaultyConnection]:
    connection = FaultyConnection()
    connection.target = server.port
    yield connection
    connection.mode = "pass"
    connection.close()


def server_client(server: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"http://127.0.0.1:{server.port}")


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "error", "lose"])
def test_fault_mid_run_delays_nothing_and_leaves_nothing_missing_or_double(
    server: MlflowServer, connection: FaultyConnection, tmp_path: Path, fault: str
) -> None:
    sink = Sink.open(connection.uri, "faults", fault, name=fault, spool=tmp_path)
    slowest = 0.0
    for step in range(90):
        if step == 30:
            assert sink.flush(20)
            connection.mode = fault
        if step == 60:
            # The fault lasts for some attempts, during which training goes on.
            time.sleep(3)
            deadline = time.monotonic() + 60
            while fault == "lose" and connection.lost_batches == 0 and time.monotonic() < deadline:
                time.sleep(0.1)
            connection.mode = "pass"
        began = time.perf_counter()
        sink.log_metrics({"train/loss": loss(step), "train/iou": 0.5}, step)
        slowest = max(slowest, time.perf_counter() - began)
    sink.log_artifact(b"after", "note.txt")
    assert sink.finish(timeout_s=30)
    assert slowest < 10, "a call waited for the server"
    if fault == "lose":
        assert connection.lost_batches > 0
    client = server_client(server)
    run = the_run(client, "faults", fault)
    assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(90)]
    assert len(client.get_metric_history(run.info.run_id, "train/iou")) == 90
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["note.txt"]


@pytest.mark.slow
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
    assert history(server_client(server), the_run(server_client(server), "asking", "one"), "a") == [(1, 1.0)]


@pytest.mark.slow
def test_server_absent_at_the_start_and_killed_mid_run(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    opened = time.time() - 0.01
    sink = Sink.open(f"http://127.0.0.1:{server.port}", "dead", "one", name="x", spool=tmp_path / "spool")
    for step in range(20):
        sink.log_metrics({"train/loss": loss(step)}, step)
    time.sleep(1)
    server.start()
    try:
        wait_for(lambda: sink.run_id is not None)
        sink.log_metrics({"train/loss": loss(20)}, 20)
        server.kill()
        for step in range(21, 40):
            sink.log_metrics({"train/loss": loss(step)}, step)
        began = time.monotonic()
        assert not sink.finish(timeout_s=1)
        assert time.monotonic() - began < 5
        (unsent,) = sync(tmp_path / "spool")
        assert unsent.run_key == "one"
        assert unsent.num_records >= 19
        assert unsent.reason
        server.start()
        assert sync(tmp_path / "spool") == []
        client = server_client(server)
        run = the_run(client, "dead", "one")
        # It began when it was opened, before there was a server, and ended when it was finished.
        assert opened <= run.info.start_time / 1000 <= opened + 5
        assert run.info.start_time < run.info.end_time
        assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(40)]
        assert run.info.status == "FINISHED"
    finally:
        server.kill()


def test_provenance_names_commit_state_versions_and_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OVOS_GIT_COMMIT", raising=False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    tags = provenance_tags(kind="trial", ray_job_id="02", label_percent=1.4321, dataset_digest="abc", root=tmp_path)
    assert (tags["ovos.git_commit"], tags["ovos.git_dirty"]) == (head, "false")
    assert (tags["ovos.label_percent"], tags["ovos.dataset_digest"], tags["ovos.ray_job_id"]) == ("1.432", "abc", "02")
    assert "ovos.version.torch" in tags
    (tmp_path / "a").write_text("2")
    assert provenance_tags(kind="trial", root=tmp_path)["ovos.git_dirty"] == "true"
    monkeypatch.setenv("OVOS_GIT_COMMIT", "f" * 40)
    assert provenance_tags(kind="trial", root=tmp_path)["ovos.git_commit"] == "f" * 40
