"""What a report of many runs costs: python benchmarks/report.py [NUM_RUNS] (default 500).

Writes a synthetic study (strategies, networks, clip lengths, skip schedules, learning rates, three seeds each, twelve
sequences, a few failed and running trials) into an SQLite store and times reading it and making the page.
"""

from __future__ import annotations

import itertools
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from synthetic_study import RawRun, curve, made_up_scores, write_study

from ovos_ray.track.report import build_report
from ovos_ray.track.study import load_study

SEQUENCES = [f"sequence-{number:02d}" for number in range(12)]


def make_runs(number: int) -> list[RawRun]:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 10, len(SEQUENCES))
    axes = (
        ("T-step", "2-step", "3-step", "empty"),
        ("stcn-tiny", "xmem-tiny", "cutie-tiny"),
        (3, 5, 8),
        (((0.0, 5),), ((0.0, 5), (0.1, 10), (0.3, 15), (0.8, 5))),
        (1e-4, 3e-4, 1e-3),
    )
    runs = [RawRun("copy the first mask", scores=made_up_scores(rng, 25, SEQUENCES, hardness), kind="baseline")]
    for strategy, network, length, skip, rate in itertools.product(*axes):
        quality = 45 + 3 * axes[0].index(strategy) % 7 + 2 * axes[1].index(network) + rng.normal(0, 2)
        for seed in range(3):
            if len(runs) > number:
                return runs
            settings = {
                "method.backward": "2-step" if strategy == "empty" else strategy,
                "method.reference": "empty" if strategy == "empty" else "predicted",
                "network.name": network,
                "data.clip_length": length,
                "data.max_skip": skip,
                "optimizer.learning_rate": rate,
            }
            draw = rng.random()
            status = "FAILED" if draw < 0.02 else "RUNNING" if draw < 0.04 else "FINISHED"
            scores = made_up_scores(rng, quality + rng.normal(0, 1), SEQUENCES, hardness)
            runs.append(
                RawRun(
                    f"{strategy}-{network}-{len(runs)}",
                    settings,
                    seed,
                    scores if status == "FINISHED" else {},
                    status,
                    tags={"ovos.label_percent": "1.4"},
                    curve=curve(quality, 10_000, 250),
                )
            )
    return runs


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder}/mlflow.db"
        began = time.perf_counter()
        write_study(uri, "many", make_runs(number))
        written = time.perf_counter()
        load_study("many", uri)
        read = time.perf_counter()
        report = build_report("many", uri, folder / "out")
        made = time.perf_counter()
        size = report.html.stat().st_size
        out = Path(sys.argv[2]) if len(sys.argv) > 2 else None
        if out is not None:
            out.write_bytes(report.html.read_bytes())
    result = {
        "runs": number,
        "configurations": len(report.comparison.rows),
        "write_s": round(written - began, 1),
        "read_s": round(read - written, 1),
        "report_s": round(made - read, 1),
        "page_MiB": round(size / 2**20, 2),
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
