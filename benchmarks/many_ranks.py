"""Whether ranks that decode at a time on few CPUs get even parts of them: nine ranks on a node of 8.

    python benchmarks/many_ranks.py [--seconds 60] [--turns 2]

Ray counts 8 CPUs and 9 ranks that hold a quarter of one and a GPU each, whatever the machine has: five whole CPUs are
free then, less than one for each. Nothing is trained; ranks take batches of tiny frames as fast as they come. Compared
is how even the parts are, with tasks that ask for the cluster's free CPUs, as Ray Data's own do and ours once did.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "support")]

from nine_ranks import ClusterWide, connect, many, start  # noqa: E402 - after the path is set
from runs import make_shards  # noqa: E402

from ovos_ray.on_ray.stream import RankStream  # noqa: E402

FIRST_S = 180.0
"""How long ranks are waited for that have no batch yet."""


def clips_per_second(config: Any, kind: type[RankStream], seconds: float) -> dict[str, Any]:
    """Counts what each rank gets, from when all have had a batch."""
    ranks, clips = start(config, kind), config.data.batch_size / config.train.num_workers
    began = time.time()

    def arrived() -> list[list[float]]:
        found: list[list[float]] = ray.get([rank.arrived.remote() for rank in ranks])
        return found

    while not all(arrived()) and time.time() < began + FIRST_S:
        time.sleep(1)
    since = time.time() + 5
    time.sleep(seconds + 5)
    speeds = [sum(since <= at < since + seconds for at in times) * clips / seconds for times in arrived()]
    for rank in ranks:
        ray.kill(rank)
    mean = sum(speeds) / len(speeds)
    farthest = max(abs(speed - mean) for speed in speeds)
    return {
        "first_batches_after_s": round(since - 5 - began, 1),
        "clips_per_s": [round(speed, 1) for speed in speeds],
        "sum": round(sum(speeds), 1),
        "farthest_from_mean_percent": round(100 * farthest / mean, 1) if mean else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_shards(Path(name))
        config = many(Path(name))
        connect()
        for turn in range(arguments.turns):
            for title, kind in (("own", RankStream), ("the cluster's", ClusterWide)):
                load = round(os.getloadavg()[0], 1)
                found = clips_per_second(config, kind, arguments.seconds)
                print(json.dumps({"turn": turn, "CPUs": title, "load": load, **found}), flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main()
