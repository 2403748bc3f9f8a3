"""Two trials that Optuna draws, on a cluster that starts nodes for them: `autoscaled_study.py FOLDER`, by its test.

A node has room for one trial. Neither goes on before both have begun; the one on the first node waits then until the
other is done and its node has gone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from elastic_run import EventFile
from processes import wait_for
from runs import config_of

from ovos_ray.on_ray.session import address_hook
from ovos_ray.on_ray.study import run_sweep
from ovos_ray.study.expand import expand
from ovos_ray.study.space import Range, SearchSpace

FEWER = "1 trials at a time from now on, as many as fit (2 before)"


class InTurns(EventFile):
    """Holds runs up as told above."""

    def __call__(self, record: dict[str, Any]) -> None:
        super().__call__(record)
        if "event" in record or record["step"] != 2:
            return
        here, there = ray.get_runtime_context().get_node_id(), self.path.parent
        (there / f"node-{here}").touch()
        wait_for(lambda: len(list(there.glob("node-*"))) == 2, 600)
        if here in min(path.name for path in there.glob("node-*")):  # their provider counts
            wait_for(lambda: FEWER in self.path.read_text(), 600)


def main(root: Path) -> None:
    ray.init(log_to_driver=False, runtime_env={"worker_process_setup_hook": address_hook()})
    rates = {"optimizer.learning_rate": Range(1e-4, 1e-3)}
    space = SearchSpace(name="autoscaled", trainable="none", ranges=rates, num_samples=2, searcher="optuna", seeds=(0,))
    trials, _ = expand(space, config_of(root / "shards", root / "runs", **{"train.cpus_per_worker": 3.0}))
    run_sweep(space, trials, watcher=InTurns(root / "events"), wait_s=600.0)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
