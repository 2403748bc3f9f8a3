"""What orchestration costs: eight short trials through a sweep, against the same eight in a plain Python loop.

    python benchmarks/sweep_overhead.py [--trials 8] [--steps 100] [--at-a-time 1 2]

The loop is one process: plan, decoder, `train_step`, evaluation; no Ray, no checkpoints, no tracking. The sweep does
what `ovos-ray sweep` does, tracking to SQLite included. Prints wall times, their ratio, where the difference goes, and
what is left of actors, placement groups and processes afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "support")]


class TimedBoard:
    """Notes when each record of a run arrives."""

    def __init__(self) -> None:
        self.records: list[tuple[float, dict[str, Any]]] = []

    def post(self, record: dict[str, Any]) -> None:
        """Notes a record."""
        self.records.append((time.time(), record))

    def all(self) -> list[tuple[float, dict[str, Any]]]:
        """Returns all records with their times."""
        return self.records


class Watcher:
    """Posts a run's records to the board."""

    def __init__(self, board: Any) -> None:
        self.board = board

    def __call__(self, record: dict[str, Any]) -> None:
        """Posts a record; does not wait."""
        self.board.post.remote(record)


def plain_loop(configs: list[Any]) -> dict[str, float]:
    import torch

    from ovos_ray.evaluate.evaluation import evaluate_network
    from ovos_ray.run.here import local_stream
    from ovos_ray.run.initial import initial_network
    from ovos_ray.train.numerics import set_numerics
    from ovos_ray.train.optimizer import build_optimizer
    from ovos_ray.train.step import TrainingModule, train_step

    training = scoring = 0.0
    processor = time.process_time()
    for config in configs:
        began = time.perf_counter()
        set_numerics(config.train, torch.device("cpu"))
        network = initial_network(config)
        module = TrainingModule(network, config)
        optimizer = build_optimizer(network, config.optimizer, torch.device("cpu"))
        for step, batch in enumerate(local_stream(config).batches()):
            train_step(module, batch, optimizer, config, step)
        trained = time.perf_counter()
        evaluate_network(network, root=config.evaluation.root, split="val")
        training += trained - began
        scoring += time.perf_counter() - trained
    used = (time.process_time() - processor) / len(configs)
    return {"training_s": training / len(configs), "scoring_s": scoring / len(configs), "processor_s_per_trial": used}


class ProcessorTime:
    """Adds up the processor time of this process and all it starts, by kind; processes that end are not lost.

    What a process uses after it was last looked at is: 0.2 s of wall time at most. Every 2 s their memory is looked at
    too: proportional set sizes, in which a page that several processes share is counted once.

    Attributes:
        most: When the processes of trials held most: their number and MiB, by kind. One that waits counts as what it
            was last seen at; those of Ray's pool that were never seen at anything are `idle`.
    """

    _ONCE_A_CLUSTER = ("driver", "Ray's own", "TimedBoard", "_StatsActor", "_AutoscalingCoordinatorActor")

    def __init__(self) -> None:
        self.most: dict[str, list[float]] = {}
        self._looks = 0
        self._seen: dict[int, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._look()
        self._before = dict(self._seen)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stop.wait(0.2):
            self._look()

    def _look(self) -> None:
        import psutil

        me = psutil.Process()
        held: dict[str, list[float]] = {}
        self._looks += 1
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                name = "driver" if process == me else _kind(" ".join(process.cmdline()))
                used = times.user + times.system
                known = self._seen.get(process.pid, ("", 0.0))[0]
                # A worker is idle before it is an actor and after; what it was in between counts.
                name = known if name in ("", "idle") and known else name
                self._seen[process.pid] = (name, used)
                if self._looks % 10 == 0 and name not in self._ONCE_A_CLUSTER and not name.endswith("Agent"):
                    number, mib = held.get(name, (0, 0.0))
                    held[name] = [number + 1, mib + process.memory_full_info().pss / 2**20]
        self.most = max(self.most, held, key=lambda kinds: sum(mib for _, mib in kinds.values()))

    def stop(self) -> dict[str, float]:
        """Returns seconds by kind of process, largest first."""
        self._stop.set()
        self._thread.join()
        self._look()
        total: dict[str, float] = {}
        for pid, (name, used) in self._seen.items():
            total[name] = total.get(name, 0.0) + used - self._before.get(pid, ("", 0.0))[1]
        return dict(sorted(total.items(), key=lambda item: -item[1]))


def _kind(command: str) -> str:
    if command.startswith("ray::"):
        name = command.removeprefix("ray::").split()[0].split(".")[0]
        return {"IDLE": "idle", "_decode_block": "decoding", "MapBatches(_decode_block)": "decoding"}.get(name, name)
    return "Ray's own" if "ray" in command else "idle"


def living() -> Counter[str]:
    """Counts the cluster's actors by class, placement groups, and this process's descendants by what they run."""
    import psutil
    import ray
    from ray._private.state import actors

    alive = [actor["ActorClassName"] for actor in actors().values() if actor["State"] != "DEAD"]
    groups = ray.util.placement_group_table().values()
    found = Counter(f"actor {name.rpartition('.')[2]}" for name in alive)
    found["placement group"] = sum(group["state"] != "REMOVED" for group in groups)
    # Idle workers are Ray's pool for tasks; it is bounded and shared by all trials.
    found.update(f"process {name}" for p in psutil.Process().children(recursive=True) if (name := _busy_name(p)))
    return +found


def _busy_name(process: Any) -> str | None:
    """Returns what a process runs; None if it has ended or is one of Ray's idle workers."""
    import psutil

    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return None
    if not command or "ray::IDLE" in command:  # it has ended, also where nobody has asked for its exit status yet
        return None
    return command.split()[0] if command.startswith("ray::") else command[-80:]


def through_sweep(space: Any, trials: list[Any], at_a_time: int) -> dict[str, Any]:
    import ray

    from ovos_ray.on_ray.study import run_sweep

    board = ray.remote(TimedBoard).options(num_cpus=0).remote()
    before = living()
    processors = ProcessorTime()
    began = time.time()
    result = run_sweep(space, trials, watcher=Watcher(board), max_concurrent=at_a_time)
    ended = time.time()
    used = processors.stop()
    assert not result.failed, result.failed
    by_run: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for arrived, record in ray.get(board.all.remote()):
        by_run.setdefault(record["run"], []).append((arrived, record))
    marks = []
    for records in by_run.values():
        events = {str(record["event"]).split()[0].rstrip(":"): at for at, record in records if "event" in record}
        marks.append((events["starting"], events["scoring"], events["finished"]))
    deadline = time.time() + 30
    while (left := living() - before) and time.time() < deadline:
        time.sleep(0.5)
    ray.kill(board)
    finished = sorted(m[2] for m in marks)
    starts = sorted(m[0] for m in marks)
    # A slot is free when a run finishes; the next run's loop starts in it.
    waits = [starts[i] - ([began] * at_a_time + finished)[i] for i in range(len(starts))]
    return {
        "at_a_time": at_a_time,
        "wall_s": ended - began,
        "first_loop_starts_after_s": starts[0] - began,
        "from_slot_free_to_loop_s": statistics.median(waits[at_a_time:]) if len(waits) > at_a_time else None,
        "training_s": statistics.median(m[1] - m[0] for m in marks),
        "scoring_and_result_s": statistics.median(m[2] - m[1] for m in marks),
        "after_last_run_s": ended - finished[-1],
        "processor_s_per_trial": sum(used.values()) / len(trials),
        "processor_s_per_trial_by_process": {name: value / len(trials) for name, value in used.items()},
        "processes_and_mib_at_most": processors.most,
        "left_over": dict(left),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 2) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--at-a-time", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--skip-loop", action="store_true")
    arguments = parser.parse_args()
    began = time.perf_counter()
    from tiny_study import make_dataset, tiny_config

    from ovos_ray.on_ray.session import ray_session
    from ovos_ray.study.expand import expand
    from ovos_ray.study.space import SearchSpace

    imports = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_dataset(root)
        base = tiny_config(root, steps=arguments.steps, checkpoint_every=arguments.steps)
        told: dict[str, Any] = {"load": os.getloadavg()[0], "trials": arguments.trials, "steps": arguments.steps}

        def study(number: int) -> tuple[Any, list[Any]]:
            seeds = tuple(range(arguments.trials))
            space = SearchSpace(name=f"overhead{number}", trainable="none", seeds=seeds)
            return space, expand(space, base)[0]

        if not arguments.skip_loop:
            began = time.perf_counter()
            told["loop"] = plain_loop([trial.config for trial in study(0)[1]])
            told["loop"]["wall_s"] = time.perf_counter() - began
        began = time.perf_counter()
        with ray_session():
            told["ray_init_s"] = time.perf_counter() - began
            told["imports_s"] = imports
            for number, at_a_time in enumerate(arguments.at_a_time, 1):
                told[f"sweep, {at_a_time} at a time"] = part = through_sweep(*study(number), at_a_time)
                if "loop" in told:
                    part["ratio_to_loop"] = part["wall_s"] / told["loop"]["wall_s"]
                    each = told["loop"]["processor_s_per_trial"]
                    part["ratio_to_loop_in_processor_time"] = part["processor_s_per_trial"] / each
                    extra = part["wall_s"] - told["loop"]["wall_s"]
                    part["overhead_per_trial_s"] = extra / arguments.trials
    print(json.dumps(_rounded(told), indent=2))


if __name__ == "__main__":
    main()
