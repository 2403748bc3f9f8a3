"""Runs a study on two nodes of this machine and kills the one that trains: `two_nodes.py FOLDER`, by its test."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import ray
from gates import Gates
from processes import free_port, wait_for
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tiny_study import tiny_config

from ovos_ray.config.digest import resolve_paths
from ovos_ray.on_ray.session import address_hook
from ovos_ray.on_ray.study import run_sweep
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.train.run_folder import RunFolder

STEPS, GATE = 20, 10


class Blocker:
    """Occupies the head, so that every worker must start on the other node."""


def study(root: Path) -> tuple[SearchSpace, list[Trial]]:
    """Three trials, two of which run at a time."""
    space = SearchSpace(
        name="nodes", trainable="none", axes={"method.backward": ("T-step", "2-step", "1-step")}, seeds=(0,)
    )
    return space, expand(space, resolve_paths(tiny_config(root, steps=STEPS), root))[0]


def kill_once_they_train(gates: Gates, trials: list[Trial], node: Any, blocker: Any, done: dict[str, Any]) -> None:
    """Waits for two trials to stand at their gates, frees the head, and kills the other node's raylet."""
    wait_for(lambda: sum(gates.reached(trial.config.name, GATE) for trial in trials) == 2, 600)
    steps = {trial.name: RunFolder.of(trial.config).checkpoints().latest() or 0 for trial in trials}
    ray.kill(blocker)
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    gates.open()
    done |= {"killed": node.node_id, "steps_at_kill": steps}


def _alive() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def main(root: Path) -> None:
    # The head has a CPU to spare: runs that start while Ray has not yet noticed the death leave reservations behind.
    # The usual port belongs to the test session's cluster.
    arguments = {"num_cpus": 3, "include_dashboard": True, "dashboard_port": free_port()}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    runtime_env = {
        "env_vars": variables | {"OMP_NUM_THREADS": "1"},
        "worker_process_setup_hook": address_hook(),
    }
    ray.init(cluster.address, log_to_driver=False, runtime_env=runtime_env)
    head = NodeAffinitySchedulingStrategy(cluster.head_node.node_id, soft=False)
    blocker = ray.remote(Blocker).options(num_cpus=2.9, scheduling_strategy=head).remote()
    space, trials = study(root)
    done: dict[str, Any] = {}
    gates = Gates(root / "gates", (GATE,))
    killer = threading.Thread(target=kill_once_they_train, args=(gates, trials, node, blocker, done), daemon=True)
    killer.start()
    result = run_sweep(space, trials, max_concurrent=2, watcher=gates)
    killer.join(1)
    # The study may end before Ray calls the node dead.
    wait_for(lambda: done.get("killed") not in _alive(), 120)
    alive = _alive()
    failed = [[failure.name, failure.reason] for failure in result.failed]
    finished = sorted(result.results)
    print(json.dumps({**done, "finished": finished, "failed": failed, "alive": alive}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
