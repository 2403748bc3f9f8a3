"""A cluster whose nodes come and go: `growing_run.py FOLDER run` or `study`, by its tests.

The head is kept free. A run waits for a node, is told that this one is taken away, which happens, and goes on on the
next; a study waits for a node, and runs two trials once there is another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
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


def leaving(root: Path) -> ExperimentConfig:
    """A run that writes no checkpoint before its end unless it is told to, and survives no failure."""
    changes = {"steps": 80, "log_every": 1, "checkpoint_every": 1000, "max_failures": 0, "cpus_per_worker": 1.0}
    small = {"data.batch_size": 1, "data.crop_size": 32, "network.name": "stcn-tiny", "name": "leaving"}
    return config_of(root / "shards", root / "runs", **small, **{f"train.{k}": v for k, v in changes.items()})


def in_thread(target: Callable[..., Any], *args: Any, **more: Any) -> threading.Thread:
    """Nodes can be added from the main thread only."""
    thread = threading.Thread(target=target, args=args, kwargs=more, daemon=True)
    thread.start()
    return thread


def says(path: Path, words: str, times: int = 1) -> Callable[[], bool]:
    return lambda: path.exists() and path.read_text().count(words) >= times


def study(root: Path, cluster: Cluster) -> dict[str, Any]:
    """Two trials of one CPU: no node has it, then one, then two."""
    space = SearchSpace(name="growing", trainable="none", seeds=(0, 1))
    trials, _ = expand(space, config_of(root / "shards", root / "runs", **{"train.cpus_per_worker": 1.0}))
    events = root / "events"
    swept = in_thread(run_sweep, space, trials, watcher=Slowly(events), wait_s=300.0)
    wait_for(says(events, "for nodes"), 300)
    cluster.add_node(num_cpus=1)
    wait_for(says(events, "starting"), 300)
    cluster.add_node(num_cpus=1)
    swept.join()
    return {}


class Slowly(EventFile):
    """Holds a run up until another one has begun too."""

    def __call__(self, record: dict[str, Any]) -> None:
        super().__call__(record)
        if "event" not in record and record["step"] == 2:
            wait_for(says(self.path, "starting", 2), 300)


class Standing(EventFile):
    """Stands still until its node's end is announced, and again, once the run has written something down, until it."""

    def __init__(self, config: ExperimentConfig, events: Path) -> None:
        super().__init__(events)
        self.config, self.told, self.gone = config, events.with_name("told"), events.with_name("gone")

    def __call__(self, record: dict[str, Any]) -> None:
        super().__call__(record)
        if "event" in record or self.gone.exists():
            return
        wait_for(self.told.exists, 300)
        time.sleep(0.2)  # who is told is looked for every few seconds: the run must not be over by then
        if RunFolder.of(self.config).checkpoints().newest_marked() is not None:
            wait_for(self.gone.exists, 300)


def run(root: Path, cluster: Cluster) -> dict[str, Any]:
    """Returns whether the run had not begun before there was a node, and the step that was written after the notice."""
    config, events = leaving(root), root / "events"
    watcher = Standing(config, events)
    fitted = in_thread(fit, RunRequest(config, "none", config.name, watcher=watcher), wait_s=300.0)
    wait_for(says(events, "waiting"), 300)
    waited_alone = "starting" not in events.read_text()
    node = cluster.add_node(num_cpus=1)
    wait_for(says(events, "starting"), 300)
    notice = {"reason": "DRAIN_NODE_REASON_PREEMPTION", "reason-message": "spot", "deadline-remaining-seconds": "600"}
    where = {"address": cluster.address, "node-id": node.node_id}
    options = [f"--{name}={value}" for name, value in {**where, **notice}.items()]
    ray_program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    subprocess.run([*ray_program, "drain-node", *options], check=True)
    watcher.told.touch()
    store = RunFolder.of(config).checkpoints()
    wait_for(lambda: store.newest_marked() is not None, 300)
    written = store.latest()
    cluster.add_node(num_cpus=1)
    cluster.remove_node(node, allow_graceful=False)
    watcher.gone.touch()
    fitted.join()
    return {"waited_alone": waited_alone, "written": written}


def main(root: Path, what: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    ray.init(cluster.address, log_to_driver=False, runtime_env={"env_vars": variables})
    print(json.dumps({"run": run, "study": study}[what](root, cluster)))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
