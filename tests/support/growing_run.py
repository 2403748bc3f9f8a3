"""A cluster whose nodes come and go: `growing_run.py FOLDER`, by its test.

The head is kept free. A run waits for a node; a study waits for one, and runs two trials once there is another; a run
is told that its node is taken away, which happens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from elastic_run import EventFile
from processes import wait_for
from ray.cluster_utils import Cluster
from runs import config_of

from ovos_ray.config import ExperimentConfig
from ovos_ray.on_ray.fit import fit
from ovos_ray.on_ray.study import run_sweep
from ovos_ray.run.request import RunRequest
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace
from ovos_ray.train.run_folder import RunFolder


def growing(root: Path) -> ExperimentConfig:
    """One worker of two CPUs."""
    return config_of(root / "shards", root / "runs", **{"train.cpus_per_worker": 2.0})


def leaving(root: Path) -> ExperimentConfig:
    """A run that writes no checkpoint before its end unless it is told to, and survives no failure."""
    changes = {"cpus_per_worker": 4.0, "steps": 60, "checkpoint_every": 1000, "max_failures": 0}
    small = {"data.batch_size": 1, "data.crop_size": 32, "network.name": "stcn-tiny", "name": "leaving"}
    return config_of(root / "shards", root / "runs", **small, **{f"train.{k}": v for k, v in changes.items()})


def in_thread(target: Callable[..., Any], *args: Any, **more: Any) -> threading.Thread:
    """Nodes can be added from the main thread only."""
    thread = threading.Thread(target=target, args=args, kwargs=more, daemon=True)
    thread.start()
    return thread


def says(path: Path, words: str, times: int = 1) -> Callable[[], bool]:
    return lambda: path.exists() and path.read_text().count(words) >= times


def study(root: Path, cluster: Cluster) -> None:
    """Two trials of three CPUs: no node has them, then one, then two."""
    space = SearchSpace(name="growing", trainable="none", seeds=(0, 1))
    trials, _ = expand(space, config_of(root / "shards", root / "runs", **{"train.cpus_per_worker": 3.0}))
    events = root / "study"
    run = in_thread(run_sweep, space, trials, watcher=Slowly(events), wait_s=300.0)
    wait_for(says(events, "for nodes"), 60)
    cluster.add_node(num_cpus=3)
    wait_for(says(events, "starting"), 120)
    cluster.add_node(num_cpus=3)
    run.join()


class Slowly(EventFile):
    """Holds a run up until another one has begun too."""

    def __call__(self, record: dict[str, Any]) -> None:
        super().__call__(record)
        if "event" not in record and record["step"] == 2:
            wait_for(says(self.path, "starting", 2), 120)


def spot(root: Path, cluster: Cluster) -> int | None:
    """Returns the step that was written down after the notice."""
    node = cluster.add_node(num_cpus=4)
    config, events = leaving(root), root / "spot"
    run = in_thread(fit, RunRequest(config, "none", config.name, watcher=EventFile(events)), wait_s=300.0)
    wait_for(says(events, "starting"), 120)
    notice = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "60",
    ]
    ray_program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    subprocess.run(
        [*ray_program, "drain-node", "--address", cluster.address, "--node-id", node.node_id, *notice], check=True
    )
    store = RunFolder.of(config).checkpoints()
    wait_for(lambda: store.newest_marked() is not None, 60)
    written = store.latest()
    cluster.add_node(num_cpus=4)
    cluster.remove_node(node, allow_graceful=False)
    run.join()
    return written


def main(root: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    ray.init(cluster.address, log_to_driver=False, runtime_env={"env_vars": variables})
    config, events = growing(root), root / "events"
    run = in_thread(fit, RunRequest(config, "none", config.name, watcher=EventFile(events)), wait_s=300.0)
    wait_for(says(events, "waiting"), 300)
    waited_alone = "starting" not in events.read_text()
    cluster.add_node(num_cpus=2)
    run.join()
    study(root, cluster)
    print(json.dumps({"waited_alone": waited_alone, "written": spot(root, cluster)}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
