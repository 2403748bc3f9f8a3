"""Server processes of the tests' own on loopback: MLflow, a connection to it that fails, the head of a Ray cluster."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    """A free port above those that Ray hands to its workers (10002 to 19999) and below those of connections.

    No other process of tests gets it as long as this one lives: each holds a lock on a file of the port's name. Servers
    take numbers, not open sockets, so that the port itself cannot be held and handed over.
    """
    for port in range(20500, 32000):
        lock = None
        with socket.socket() as candidate, contextlib.suppress(OSError):  # another user's file is refused
            lock = os.open(Path(tempfile.gettempdir(), f"ovos-tests-port-{port}"), os.O_CREAT | os.O_RDWR, 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            candidate.bind(("127.0.0.1", port))
            return port
        if lock is not None:
            os.close(lock)
    raise OSError("no free port")


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server answers there, be it with a refusal."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False


def wait_for(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)


def last_line(printed: str) -> Any:
    """What a process has printed last as a line of JSON; Ray may warn of something after that."""
    return json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])


class MlflowServer:
    """A real server process that can be killed and started again on the same store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
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
        if wait:
            self.wait()

    def wait(self) -> None:
        wait_for(lambda: answers(self.port, "/health"), 300)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)


class FaultyConnection:
    """A proxy before a real MLflow server.

    Modes: `pass`; `hang` (accepts and never answers, until the mode changes); `error` (500); `lose` (carried out, the
    answer never arrives).
    """

    def __init__(self, target: int) -> None:
        self.mode = "pass"
        self.target = target
        self.batches = self.lost_batches = self.hanging = self.errors = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.mode == "hang":
                    proxy.hanging += 1
                    while proxy.mode == "hang":
                        time.sleep(0.05)
                    return
                if proxy.mode == "error":
                    proxy.errors += 1
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

    @property
    def faults(self) -> int:
        """Requests that met the fault so far."""
        return self.hanging + self.errors + self.lost_batches

    def close(self) -> None:
        self.mode = "pass"
        self._server.shutdown()
        self._server.server_close()


class RayHead:
    """`ray start --head` in a process that ends with all its children when it is terminated; nobody else's cluster.

    Args:
        folder: Ray's own; short, for the sake of its sockets.
        environment: More variables.
        num_cpus: Of the head.
        worker_cpus: Of nodes that an autoscaler starts as processes of this machine; None: there is none.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], num_cpus: int, worker_cpus: int | None = None
    ) -> None:
        self.dashboard = free_port()
        self.address = f"http://127.0.0.1:{self.dashboard}"
        ports = {
            name: free_port()
            for name in (
                "port",
                "ray-client-server-port",
                "dashboard-agent-listen-port",
                "dashboard-agent-grpc-port",
                "runtime-env-agent-port",
                "metrics-export-port",
            )
        }
        self.gcs_address = f"127.0.0.1:{ports['port']}"
        command = f"start --head --block --node-ip-address 127.0.0.1 --num-cpus {num_cpus} --disable-usage-stats"
        command += f" --dashboard-host 127.0.0.1 --dashboard-port {self.dashboard} --min-worker-port 0"
        command += f" --max-worker-port 0 --object-store-memory {300 * 2**20} --temp-dir {folder}"
        command += "".join(f" --{name} {port}" for name, port in ports.items())
        if worker_cpus is not None:
            scaling = folder.with_suffix(".json")
            scaling.write_text(json.dumps(_growing(self.gcs_address, num_cpus, worker_cpus)))
            command += f" --autoscaling-config {scaling}"
            # Processes of one machine are told apart by the ids that their provider has given them.
            ids = dict.fromkeys(("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"), _HEAD_ID)
            here = {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))}
            environment = {**_AUTOSCALER, **ids, **here, **environment}
        self._log = folder.with_suffix(".log")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *command.split()],
                # Jobs run the first `python` on the head's path.
                env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(self._ready, 300)

    @property
    def num_nodes(self) -> int:
        """How many nodes live beside the head, of those that its autoscaler has started."""
        return len(self._nodes())

    def kill_nodes(self) -> None:
        """Kills the raylets of all nodes but the head, and waits for the processes that end after them."""
        raylets = self._nodes()
        left = [process for raylet in raylets for process in raylet.children(recursive=True)]
        for raylet in raylets:
            raylet.kill()
        psutil.wait_procs(left, timeout=60)

    def _nodes(self) -> list[psutil.Process]:
        found = []
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE:
                    found += [process] if "--head" not in process.cmdline() else []
        return found

    def _ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return answers(self.dashboard, "/api/version")

    def stop(self) -> None:
        """Ends the cluster: Ray's own way first, then by the ids of the processes that came of this one."""
        mine = self._family()
        self._process.terminate()
        _, alive = psutil.wait_procs(mine, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(30)

    def kill(self) -> None:
        """Ends all of it at once, as a machine that loses its power."""
        for process in self._family()[::-1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(30)

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self._process.pid)
        return [*own.children(recursive=True), own]


_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
_AUTOSCALER = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}


def _growing(gcs_address: str, head_cpus: int, worker_cpus: int) -> dict[str, Any]:
    """What `ray up` is told of a cluster of up to two nodes that are processes of this machine, by a part of Ray's.

    The provider is named by its class: as `fake_multinode` it reads a file of defaults, which no wheel of Ray has.
    """
    no_commands = ("setup", "head_setup", "worker_setup", "initialization")
    head, worker = {"CPU": head_cpus}, {"CPU": worker_cpus, "object_store_memory": 200 * 2**20, "memory": 2**30}
    return {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 0.25,
        "provider": {
            "type": "external",
            "module": "fake_nodes.FakeNodes",
            "gcs_address": gcs_address,
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        **{f"{kind}_commands": [] for kind in no_commands},
        "cluster_synced_files": [],
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": head, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }
