"""An elastic run on two nodes of this machine, one of which is killed while it trains: `elastic_run.py FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from gates import Gates
from processes import free_port, wait_for
from ray.cluster_utils import Cluster
from runs import config_of

from ovos_ray.config import ExperimentConfig
from ovos_ray.on_ray.fit import fit
from ovos_ray.on_ray.session import address_hook
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

STEPS, GATE = 20, 10


class EventFile:
    """Writes what a run tells of itself into a file, from whichever process; an actor might die with the node."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, record: dict[str, Any]) -> None:
        if "event" in record:
            with self.path.open("a") as file:
                file.write(f"{time.time():.0f} {record['event']}\n")


def elastic(root: Path) -> ExperimentConfig:
    """Three workers of one CPU each, if there is room, which leaves nothing to decode with; one at least."""
    train = {"num_workers": 3, "min_workers": 1, "cpus_per_worker": 1.0, "steps": STEPS, "log_every": 5}
    # Adam divides by the gradient's size: with a small epsilon it would make much of the rounding of zeros.
    changes = {"optimizer.epsilon": 1e-3, **{f"train.{key}": value for key, value in train.items()}}
    return config_of(root / "shards", root / "runs", **changes)


def kill_once_it_trains(gates: Gates, config: ExperimentConfig, node: Any, done: dict[str, Any]) -> None:
    """Waits for the run to stand at its gate, and kills the second node's raylet."""
    wait_for(lambda: gates.reached(config.name, GATE), 600)
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    gates.open()
    done["step_at_kill"] = RunFolder.of(config).checkpoints().latest()


def main(root: Path) -> None:
    arguments = {"num_cpus": 2, "include_dashboard": True, "dashboard_port": free_port()}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    # Until Ray notices the death it reserves for three again, and waits a minute for that by default.
    variables |= {"OMP_NUM_THREADS": "1", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}
    runtime_env = {"env_vars": variables, "worker_process_setup_hook": address_hook()}
    ray.init(cluster.address, log_to_driver=False, runtime_env=runtime_env)
    config, done = elastic(root), dict[str, Any]()
    gates = Gates(root / "gates", (GATE,), then=EventFile(root / "events"))
    killer = threading.Thread(target=kill_once_it_trains, args=(gates, config, node, done), daemon=True)
    killer.start()
    fit(RunRequest(config, "none", config.name, watcher=gates))
    print(json.dumps(done))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
