"""Two trials of two workers, one after the other, on a cluster that starts nodes: `lost_node_study.py FOLDER`.

The first trial stands still at a step until its test has killed the only node.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from elastic_run import EventFile
from gates import Gates
from runs import config_of

from ovos_ray.on_ray.session import address_hook
from ovos_ray.on_ray.study import run_sweep
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace

GATE = 4


def main(root: Path) -> None:
    ray.init(log_to_driver=False, runtime_env={"worker_process_setup_hook": address_hook()})
    axes = {"optimizer.learning_rate": (1e-3, 2e-3)}
    space = SearchSpace(name="lost", trainable="none", axes=axes, seeds=(0,))
    two = {"train.num_workers": 2, "train.cpus_per_worker": 1.5}
    trials, _ = expand(space, config_of(root / "shards", root / "lost", **two))
    watcher = Gates(root / "gates", (GATE,), then=EventFile(root / "lost-events"))
    run_sweep(space, trials, watcher=watcher, wait_s=600.0, max_concurrent=1)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
