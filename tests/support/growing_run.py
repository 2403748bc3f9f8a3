"""A run on a cluster that is too small for it until another node joins: `growing_run.py FOLDER`, by its test."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import ray
from elastic_run import EventFile
from processes import wait_for
from ray.cluster_utils import Cluster
from runs import config_of

from ovos_ray.config import ExperimentConfig
from ovos_ray.on_ray.fit import fit
from ovos_ray.run.request import RunRequest


def growing(root: Path) -> ExperimentConfig:
    """One worker of two CPUs."""
    return config_of(root / "shards", root / "runs", **{"train.cpus_per_worker": 2.0})


def main(root: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    ray.init(cluster.address, log_to_driver=False, runtime_env={"env_vars": variables})
    config, events = growing(root), root / "events"
    request = RunRequest(config, "none", config.name, watcher=EventFile(events))
    run = threading.Thread(target=fit, args=(request,), kwargs={"wait_s": 300.0})
    run.start()
    # Nodes can be added from this thread only.
    wait_for(lambda: events.exists() and "waiting" in events.read_text(), 60)
    waited_alone = "starting" not in events.read_text()
    cluster.add_node(num_cpus=2)
    run.join()
    print(json.dumps({"waited_alone": waited_alone}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
