"""What a large study costs beside training: run `python benchmarks/scale.py`; docs/scale.md does the sums.

Measures the unit costs of index, plan, study, tracking and checkpoints for YouTube-VOS's 3,471 training videos and
1,000 trials. Nothing is trained and no GPU is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.data.clips.plan import Plan
from ovos_ray.data.masks import ObjectBox
from ovos_ray.data.shards.index import LabelBudget, ShardFile, ShardIndex, VideoEntry
from ovos_ray.storage import Storage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
NUM_VIDEOS, NUM_FRAMES = 3471, 94_000
NUM_TRIALS = 1000
LARGEST_JSON = 100_000  # videos; a million would take gigabytes
INDICES = ("json", "columns", "shared")  # a text; columns, of each process its own; columns, of a node one
NUM_PROCESSES = 5
NETWORKS = ("stcn-tiny", "xmem-tiny", "cutie-tiny", "stcn", "xmem", "cutie-small", "cutie-base")


def rss_mib() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


@contextmanager
def timed(result: dict[str, float], name: str, count: int = 1) -> Iterator[None]:
    """Adds wall and processor milliseconds, divided by `count`."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    result[f"{name}_wall_ms"] = round(1e3 * (time.perf_counter() - wall) / count, 4)
    result[f"{name}_cpu_ms"] = round(1e3 * (time.process_time() - processor) / count, 4)


def synthetic_index(num_videos: int = NUM_VIDEOS) -> ShardIndex:
    """As many frames and objects a video as YouTube-VOS has, with its names; one label each."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 37, num_videos)
    lengths = np.maximum(4, np.round(lengths * NUM_FRAMES / NUM_VIDEOS * num_videos / lengths.sum())).astype(int)
    rows_before = (np.cumsum(lengths) - lengths).tolist()
    names = sorted({f"{number:010x}" for number in rng.integers(16**10, size=num_videos + num_videos // 100)})
    videos = []
    for number, length in enumerate(lengths.tolist()):
        x, y = rng.integers(0, 400, 2).tolist()
        boxes = tuple(ObjectBox(i + 1, x, y, x + 300, y + 200, 30_000 + i) for i in range(int(rng.integers(1, 5))))
        videos.append(
            VideoEntry(
                name=names[number],
                num_frames=length,
                height=720,
                width=1280,
                frame_names=tuple(f"{5 * frame:05d}" for frame in range(length)),
                label_frames=(0,),
                objects={0: boxes},
                shard=0,
                first_row=rows_before[number],
            )
        )
    total = int(lengths.sum())
    return ShardIndex(
        dataset="youtube-vos2018", layout="youtube-vos", split="train", labels="first", frame_interval=5,
        shortest_side=480, num_reencoded=total, budget=LabelBudget(num_videos, total), digest="0" * 16,
        source_digest="0" * 16, rows_per_group=8, files=(ShardFile("frames-00000.parquet", total),),
        videos=tuple(videos),
    )  # fmt: skip


def measure_index_and_plan(folder: Path) -> dict[str, float]:
    result: dict[str, float] = {}
    index = synthetic_index()
    index.save(Storage(str(folder)))
    result["index_bytes"] = (folder / "index.json").stat().st_size
    result["index_bytes_per_video"] = round(result["index_bytes"] / NUM_VIDEOS)
    before = rss_mib()
    with timed(result, "index_load"):
        loaded = ShardIndex.load(folder)
    result["index_mib"] = round(rss_mib() - before, 1)
    assert loaded == index
    config = override(ExperimentConfig(), {"data.clip_length": 3, "data.batch_size": 16})
    before = rss_mib()
    with timed(result, "plan_build"):
        plan = Plan([loaded], config.data, seed=0, steps=150_000)
    result["plan_mib"] = round(rss_mib() - before, 1)
    plan.clip(0)
    with timed(result, "plan_clip", 20_000):
        for position in range(20_000):
            plan.clip(position)
    return result


def measure_large_index(num_videos: int, kind: str) -> list[dict[str, float]]:
    """Writes an index of so many videos, and loads it in processes of their own: what the first and the others pay."""
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        command = [sys.executable, __file__, "--index", kind, "--videos", str(num_videos)]
        subprocess.run([*command, "--write-index", shards], check=True)
        loading = [
            subprocess.Popen(
                [*command, "--load-index", shards], env={**os.environ, "OVOS_CACHE": f"{folder}/cache"}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for _ in range(NUM_PROCESSES)
        ]  # fmt: skip
        for process in loading:
            _answer(process)  # all are there before the first loads
        for _ in ("load", "memory", "plan", "memory"):
            answers = []
            for process in loading:
                print(file=process.stdin, flush=True)
                answers.append(_answer(process))
        for process in loading:
            process.communicate()
    return [json.loads(answer) for answer in answers]


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def load_large_index(folder: Path, kind: str) -> None:
    """What one process pays for an index: time and memory, of its own and with its part of what it shares."""
    result: dict[str, float] = {"bytes": sum(path.stat().st_size for path in folder.iterdir())}
    config = override(ExperimentConfig(), {"data.clip_length": 3, "data.batch_size": 16})

    def wait() -> None:
        print(json.dumps(result), flush=True)
        input()

    def grown(name: str) -> None:
        now = psutil.Process().memory_full_info()
        result[f"{name}_mib"] = round((now.uss - before.uss) / 2**20, 1)
        result[f"{name}_pss_mib"] = round((now.pss - before.pss) / 2**20, 1)

    wait()
    before = psutil.Process().memory_full_info()
    with timed(result, "load"):
        index = ShardIndex.shared(folder) if kind == "shared" else ShardIndex.load(folder)
    result["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before.rss / 2**20, 1)
    wait()
    grown("load")
    wait()
    with timed(result, "plan"):
        plan = Plan([index], config.data, seed=0, steps=150_000)
    plan.clip(0)
    with timed(result, "clip", 20_000):
        for position in range(20_000):
            plan.clip(position)
    wait()
    grown("planned")
    print(json.dumps(result), flush=True)


def measure_study() -> dict[str, float]:
    """Expanding, describing and keeping 1,000 trials in the driver."""
    from ovos_ray.study.expand import expand
    from ovos_ray.study.run_study import requests_of
    from ovos_ray.study.space import SearchSpace

    result: dict[str, float] = {}
    base = override(ExperimentConfig(), {"network.name": "xmem", "data.shards": ("/mnt/youtube_vos2018",)})
    rates = tuple(1e-5 * (1 + i) for i in range(NUM_TRIALS // 10))
    space = SearchSpace(name="large", trainable="none", axes={"optimizer.learning_rate": rates}, seeds=tuple(range(10)))
    expand(SearchSpace(name="warm", trainable="none", seeds=(0,)), base)
    before = rss_mib()
    with timed(result, "expand"):
        trials, _ = expand(space, base)
    assert len(trials) == NUM_TRIALS
    with timed(result, "requests"):
        requests = requests_of(space, trials, tags={})
    result["driver_mib"] = round(rss_mib() - before, 1)
    result["request_bytes"] = round(len(pickle.dumps(requests)) / NUM_TRIALS)
    result["tune_trial_bytes"] = round(_tune_trial_bytes())
    return result


def _tune_trial_bytes() -> float:
    """What Tune's own description of a trial takes in the driver, beside the processes that run it."""
    from ray.train._internal.storage import StorageContext
    from ray.tune.experiment import Trial

    with tempfile.TemporaryDirectory() as folder:
        storage = StorageContext(storage_path=folder, experiment_dir_name="scale")
        before = rss_mib()
        trials = [Trial("fn", config={"trial": f"{i}"}, stub=True, storage=storage) for i in range(NUM_TRIALS)]
        return (rss_mib() - before) * 2**20 / len(trials)


def measure_tracking(folder: Path, uri: str, database: str, num_calls: int) -> dict[str, float]:
    """A run's log calls into its spool, then what sending them takes and how much the store grows."""
    from ovos_ray.track.records import RunIdentity
    from ovos_ray.track.sender import Sender
    from ovos_ray.track.spool import Spool

    result: dict[str, float] = {}
    keys = ["loss", "iou", "grad_norm", "learning_rate", "clips_per_s", "data_wait"]
    values = {f"train/{key}": 0.123456789 for key in keys} | {f"system/{key}": 12.3456 for key in keys[:5]}
    spool = Spool(folder / f"spool-{database}", RunIdentity(uri, "scale", database, "scale"))
    spool.append("metrics", {"step": 0, "values": values})
    Sender(spool).drain()  # imports, migrations, experiment and run
    with timed(result, "log_call", num_calls):
        for step in range(1, num_calls + 1):
            spool.append("metrics", {"step": 20 * step, "values": {k: v + step for k, v in values.items()}})
    spool.close()
    result["spool_bytes_per_call"] = round(spool.records_path.stat().st_size / (num_calls + 1))
    file = folder / database
    before = file.stat().st_size if file.exists() else 0
    with timed(result, "send_call", num_calls):
        Sender(spool).drain()
    if file.exists():
        result["database_bytes_per_point"] = round((file.stat().st_size - before) / num_calls / len(values))
    # A resumed run's first record: the server is asked for every point it has of these metrics.
    again = Spool(folder / f"again-{database}", RunIdentity(uri, "scale", database, "scale"))
    again.append("metrics", {"step": 20 * (num_calls + 1), "values": values})
    with timed(result, "resume"):
        Sender(again).drain()
    result["points_per_s"] = round(1e3 * len(values) / result["send_call_wall_ms"])
    result["points_per_call"] = len(values)
    return result


def measure_checkpoints(folder: Path) -> dict[str, Any]:
    """Estimated sizes of all networks; the small ones written for comparison."""
    import torch

    from ovos_ray import networks
    from ovos_ray.run.estimate import checkpoint_bytes
    from ovos_ray.train.checkpoint import CheckpointStore

    result: dict[str, Any] = {}
    for name in NETWORKS:
        config = override(ExperimentConfig(), {"network.name": name})
        with torch.device("meta"):
            weights = sum(t.numel() * t.element_size() for t in networks.build(name).state_dict().values())
        result[name] = {"checkpoint_mib": checkpoint_bytes(config) / 2**20, "weights_mib": weights / 2**20}
    for name in ("xmem-tiny", "stcn"):
        network = networks.build(name)
        optimizer = torch.optim.AdamW(network.parameters())
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        store = CheckpointStore(Storage(str(folder / name)))
        with timed(result[name], "save"):
            store.save(1, {"network": network.state_dict(), "optimizer": optimizer.state_dict()})
        result[name]["written_mib"] = (folder / name / "step-00000001" / "state.pt").stat().st_size / 2**20
    return {name: {key: round(value, 1) for key, value in numbers.items()} for name, numbers in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="log calls that are sent to each store")
    parser.add_argument("--tracking-uri", help="measure a running server alone, such as one on PostgreSQL")
    parser.add_argument("--index-sizes", type=int, nargs="*", help="measure indices of so many videos alone")
    for hidden in ("--write-index", "--load-index"):  # the processes that this starts
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--videos", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--index", choices=INDICES, nargs="*", default=INDICES, help="of these kinds alone")
    arguments = parser.parse_args()
    if arguments.write_index:
        columnar = "json" not in arguments.index
        synthetic_index(arguments.videos).save(Storage(str(arguments.write_index)), columnar=columnar)
        return
    if arguments.load_index:
        load_large_index(arguments.load_index, *arguments.index)
        return
    if arguments.index_sizes:
        for size in arguments.index_sizes:
            for kind in arguments.index:
                if kind == "json" and size > LARGEST_JSON:
                    continue
                for number, result in enumerate(measure_large_index(size, kind), 1):
                    print(size, kind, f"process {number}:", json.dumps(result), flush=True)
        return
    calls = arguments.calls
    from importlib import metadata

    from processes import MlflowServer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.tracking_uri:
            print(
                json.dumps(measure_tracking(folder, arguments.tracking_uri, f"run-{time.time_ns()}", calls), indent=2)
            )
            return
        parts: dict[str, Callable[[], Any]] = {
            "index and plan": lambda: measure_index_and_plan(folder),
            "study": measure_study,
            "checkpoints": lambda: measure_checkpoints(folder),
            "tracking, sqlite": lambda: measure_tracking(folder, f"sqlite:///{folder}/own.db", "own.db", calls),
        }
        results: dict[str, Any] = {title: measure() for title, measure in parts.items()}
        server = MlflowServer(folder)
        server.start()
        try:
            results["tracking, http server on sqlite"] = measure_tracking(folder, server.uri, "m.db", calls)
        finally:
            server.kill()
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    versions = {package: metadata.version(package) for package in ("torch", "mlflow", "numpy", "pyarrow")}
    print(json.dumps({"machine": machine, "versions": versions, **results}, indent=2))


if __name__ == "__main__":
    main()
