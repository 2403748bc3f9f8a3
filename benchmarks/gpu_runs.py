"""Parts (b) and (c) of `gpu_proof.py`: whole runs under Ray on one GPU, and a sweep on quarters of it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

__all__ = ["measure_runs", "measure_sweep"]

Save = Callable[[str, Any], None]


class Diary:
    """Writes progress records of runs, with the time, into a file that all processes of the machine share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)

    def __call__(self, record: dict[str, Any]) -> None:
        line = json.dumps({"time": time.time(), **record}, default=str) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    def records(self, run: str) -> list[dict[str, Any]]:
        """Returns the records of a run so far."""
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return [line for line in lines if line["run"] == run]


def make_data(args: argparse.Namespace) -> tuple[Path, Path]:
    """Returns a dataset of synthetic videos and its shards, made unless they are there."""
    root = args.scratch / f"data-{'x'.join(map(str, args.frame))}"
    if not (root / "shards" / "index.json").exists():
        height, width = args.frame
        size = synthetic.SyntheticConfig(height=height, width=width, num_frames=args.num_frames)
        synthetic.generate(root / "dataset", seed=0, num_videos={"train": 8, "val": 2}, config=size)
        pack(open_dataset(root / "dataset"), root / "shards", labels="first", split="train")
    return root / "dataset", root / "shards"


def config_of(args: argparse.Namespace, name: str, data: tuple[Path, Path], **changes: Any) -> ExperimentConfig:
    """A one-shot run of two steps back, with checkpoints, an evaluation at its end, and no tracking."""
    settings = {
        "name": name,
        "network.name": args.network,
        "network.init": "random",
        "data.shards": (str(data[1]),),
        "data.clip_length": args.run_clip,
        "data.crop_size": args.crop,
        "data.batch_size": args.run_batch,
        "data.max_objects": 3,
        "optimizer.clip_norm": 1.0,
        "evaluation.root": str(data[0]),
        "train.steps": args.steps,
        "train.log_every": max(1, args.steps // 15),
        "train.checkpoint_every": changes.get("train__steps", args.steps) // 3,
        "train.cpus_per_worker": 0.5 if args.tiny else 4.0,
        "train.gpus_per_worker": args.share,
        "train.num_threads": 1 if args.tiny else 4,
        "storage": str(args.scratch / "runs"),
        "tracking_uri": "",
    }
    return override(ExperimentConfig(), settings | {key.replace("__", "."): value for key, value in changes.items()})


def bare_step(config: ExperimentConfig, args: argparse.Namespace) -> dict[str, float]:
    """Returns what the same step takes alone: one batch on the device, no Ray, no decoding; and what decoding takes."""
    from ovos_ray.networks import build
    from ovos_ray.run.here import local_stream
    from ovos_ray.train.copies import on_device
    from ovos_ray.train.numerics import set_numerics
    from ovos_ray.train.optimizer import build_optimizer
    from ovos_ray.train.step import TrainingModule, train_step

    device = torch.device(args.device)
    began = time.perf_counter()
    batches = local_stream(config).batches()
    host = next(batches)
    decoding = time.perf_counter() - began
    batch = next(on_device([host], device))
    set_numerics(config.train, device)
    network = build(config.network.name).to(device)
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, device)
    steps, times = 2 if args.tiny else 10, []
    for _ in range(4):  # as a run makes them, one after another; the first round captures and chooses
        began = time.perf_counter()
        for step in range(steps):
            train_step(module, batch, optimizer, config, step, wait=False)
        module.skipped.read()  # waits for all of them
        times.append((time.perf_counter() - began) / steps)
    seconds = statistics.median(times[1:])
    return {
        "seconds": seconds,
        "clips per s": len(batch["weight"]) / seconds,
        "decoding a batch, one thread, s": decoding,
    }


def checkpoint_seconds(config: ExperimentConfig, args: argparse.Namespace) -> float:
    """Returns how long a run stands still for a checkpoint: weights and moments, onto this disk."""
    from ovos_ray.run.state import RunState
    from ovos_ray.train.checkpoint_writer import CheckpointWriter
    from ovos_ray.train.run_folder import RunFolder

    config = override(config, {"name": "checkpoint"})
    writer = CheckpointWriter(RunFolder.of(config).checkpoints())
    state = RunState.at(config, 0, torch.device(args.device))
    loss = sum(p.sum() for p in state.network.parameters())
    loss.backward()  # type: ignore[union-attr]
    state.optimizer.step()
    began = time.perf_counter()
    writer.start(1, state.content(1))
    seconds = time.perf_counter() - began
    writer.close()
    return seconds


def measure_runs(args: argparse.Namespace, save: Save) -> None:
    """One worker on the whole GPU; the bare step; then two workers that share the GPU, of which one is killed.

    The run comes first: it is what was seen least, and the bare step that follows finds libraries read from the disk.
    """
    data = make_data(args)
    save("videos made, s", round(time.monotonic() - args.began, 1))
    diary = Diary(args.scratch / "diary.jsonl")
    with session(args):
        save("Ray up, s", round(time.monotonic() - args.began, 1))
        one = run(config_of(args, "one", data), diary, lambda found: save("one worker", found))
        bare: dict[str, Any] = attempt(lambda: bare_step(config_of(args, "bare", data), args))
        save("bare step", bare)
        save("one worker", {**one, **share(one, bare)})
        save("checkpoint", attempt(lambda: {"seconds": checkpoint_seconds(config_of(args, "bare", data), args)}))
        halves = {"train__gpus_per_worker": args.share / 2, "train__steps": args.steps_of_two}
        config = config_of(args, "two", data, train__num_workers=2, **halves)
        killer = Killer(config)
        two = run(config, diary, lambda found: save("two workers, one killed", {**found, **killer.found()}))
        save("two workers, one killed", {**two, **share(two, bare), **killer.found(over=True)})
        ended = [record["event"] for record in diary.records("two") if "event" in record]
        save("what the second run said", " / ".join(event[:160] for event in ended))


def measure_sweep(args: argparse.Namespace, save: Save) -> None:
    """Four trials at a time on a quarter of the GPU each."""
    from ovos_ray.on_ray.study import run_sweep
    from ovos_ray.study.expand import expand
    from ovos_ray.study.space import SearchSpace

    data, diary = make_data(args), Diary(args.scratch / "sweep.jsonl")
    base = config_of(args, "sweep", data, train__steps=args.trial_steps, train__checkpoint_every=args.trial_steps)
    base = override(base, {"train.gpus_per_worker": args.share / 4, "train.cpus_per_worker": 0.4 if args.tiny else 2.0})
    space = SearchSpace(name="sweep", trainable="none", axes={"optimizer.learning_rate": (1e-5, 3e-5)}, seeds=(0, 1))
    trials, _ = expand(space, base)

    def tell() -> None:
        for trial in trials:
            records = diary.records(trial.config.name)
            steps = [record for record in records if "train/loss" in record]
            found = {
                "begins, s": round(records[0]["time"] - began, 1) if records else None,
                "last said, s": round(records[-1]["time"] - began, 1) if records else None,
                "clips per s": statistics.median(r["train/clips_per_s"] for r in steps) if steps else None,
                "MiB": round(1024 * steps[-1].get("train/gpu_memory_gib", 0)) if steps else None,
            }
            save(trial.name, found)

    with session(args):
        began = time.time()
        with meanwhile(tell):
            result = run_sweep(space, trials, watcher=diary)
        seconds = time.time() - began
    save("sweep", {"seconds": round(seconds, 1), "finished": len(result.results), "failed": len(result.failed)})
    if result.failed:
        save("failures", [str(failure) for failure in result.failed])


def session(args: argparse.Namespace) -> Any:
    """Returns a local cluster of this machine's own, as the command line starts it."""
    from ovos_ray.on_ray.session import ray_session

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    args.scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(args.scratch)  # Ray ships the current folder
    return ray_session(verbose=False, num_cpus=2 if args.tiny else os.cpu_count())


@contextmanager
def meanwhile(tell: Callable[[], None]) -> Iterator[None]:
    """Has every other second told what is known so far, so that nothing is lost when the time is over."""
    over = threading.Event()

    def keep_telling() -> None:
        while not over.wait(2.0):
            tell()

    thread = threading.Thread(target=keep_telling, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell()


def run(config: ExperimentConfig, diary: Diary, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Makes a run, has kept what it says as it goes, and returns all that is known of it."""
    from ovos_ray.on_ray.fit import fit

    began, found = time.time(), {"failed": "its time was over"}

    def finish() -> dict[str, Any]:
        fit(RunRequest(config, "gpu-proof", config.name, watcher=diary))
        return {}

    def tell() -> None:
        keep({**describe(config, diary, began), **found})

    with meanwhile(tell):
        found = attempt(finish)
    return {**describe(config, diary, began), **found}


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what was measured, or why it was not: what follows is measured all the same."""
    try:
        return measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:500]}


def share(run: dict[str, Any], bare: dict[str, Any]) -> dict[str, float]:
    """Returns the speed of a run relative to the bare step's, where both are known."""
    known = "clips per s" in run and "clips per s" in bare
    return {"of the bare step": round(run["clips per s"] / bare["clips per s"], 3)} if known else {}


def describe(config: ExperimentConfig, diary: Diary, began: float) -> dict[str, Any]:
    """Returns what a run has told of itself so far, and what it left."""
    records = diary.records(config.name)
    intervals = [record for record in records if "train/clips_per_s" in record]
    found: dict[str, Any] = {"seconds in all": round(time.time() - began, 1)}
    if records:
        found["until it trains, s"] = round(records[0]["time"] - began, 1)
    if intervals:
        steady, last = intervals[2:] or intervals, intervals[-1]
        speeds = [record["train/clips_per_s"] for record in steady]
        result = RunFolder.of(config).result() or {}
        found |= {
            "first interval over, s": round(intervals[0]["time"] - began, 1),
            "clips per s": round(statistics.median(speeds), 2),
            "slowest, fastest interval": [round(min(speeds), 2), round(max(speeds), 2)],
            "data wait": round(statistics.median(record["train/data_wait"] for record in steady), 3),
            "gpu memory GiB": last.get("train/gpu_memory_gib"),
            "first loss": intervals[0]["train/loss"],
            "last loss": last["train/loss"],
            "last step told": last["step"],
            "steps": result.get("steps"),
            "scores": result.get("scores"),
        }
    return found


class Killer(threading.Thread):
    """Kills one of a run's workers soon after its first checkpoint."""

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__(daemon=True)
        self._folder = RunFolder.of(config)
        self.step: int | None = None
        self.start()

    def found(self, over: bool = False) -> dict[str, Any]:
        """Returns after which checkpoint one was killed; that none was is a failure once the run is over."""
        if self.step is not None:
            return {"killed after checkpoint": self.step}
        return {"kill failed": "no worker was found after the first checkpoint"} if over else {}

    def run(self) -> None:
        """Waits for the checkpoint, and for a worker."""
        import psutil

        store = self._folder.checkpoints()
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            time.sleep(0.1)
            step = store.latest()
            if step is None:
                continue
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RayTrainWorker"):
                        process.kill()
                        self.step = step
                        return
                except psutil.Error:
                    continue
