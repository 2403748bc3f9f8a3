"""What tracking costs a training process: run `python benchmarks/tracking.py`.

Logs as a run of 20,000 steps does that logs every 20 steps (ten scalars), against an SQLite store, a server that never
answers, and none. Prints the time of one call and the processor time that the sending thread takes from the process.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from pathlib import Path

from ovos_ray.track.sink import Sink

NUM_CALLS = 1000
SCALARS = {f"train/scalar_{number}": 0.5 for number in range(10)}


def measure(uri: str, folder: Path) -> dict[str, float]:
    sink = Sink.open(uri, "cost", uri, name="cost", spool=folder / str(len(uri)))
    # The import of MLflow and the migrations of a new database are paid once, and shown apart.
    began = time.process_time()
    time.sleep(12)
    start_s = time.process_time() - began
    began, own = time.process_time(), time.thread_time()
    calls = []
    for step in range(NUM_CALLS):
        before = time.perf_counter()
        sink.log_metrics(SCALARS, step * 20)
        calls.append(time.perf_counter() - before)
        time.sleep(0.01)
    sending_s = time.process_time() - began - (time.thread_time() - own)
    sink.finish(timeout_s=5)
    calls.sort()
    return {
        "call_us_median": round(1e6 * calls[NUM_CALLS // 2]),
        "call_us_99th": round(1e6 * calls[NUM_CALLS * 99 // 100]),
        "thread_cpu_s_at_start": round(start_s, 2),
        "thread_cpu_ms_per_call": round(1e3 * sending_s / NUM_CALLS, 2),
    }


def main() -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=64)
    with tempfile.TemporaryDirectory() as name:
        results = {
            "sqlite": measure(f"sqlite:///{name}/mlflow.db", Path(name)),
            "server that never answers": measure(f"http://127.0.0.1:{silent.getsockname()[1]}", Path(name)),
            "no server": measure("http://127.0.0.1:9", Path(name)),
        }
    print(json.dumps({"load": os.getloadavg()[0], **results}, indent=2))


if __name__ == "__main__":
    main()
