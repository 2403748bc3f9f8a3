"""What `--dry-run` says a worker will need against what one took: peak memory of some steps, in fresh processes.

The worker has imported Ray, as in a run; its frames come from synthetic shards through the same decoder.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack

SMALL: dict[str, Any] = {"train.steps": 4, "train.checkpoint_every": 4, "tracking_uri": "", "pretrain": None}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny XMem, n = 5, 4 clips at 128": ("trainables.one_shot", {}),
    "tiny XMem, n = 8, T-step, 4 clips at 160": (
        "trainables.one_shot",
        {"method.backward": "T-step", "data.clip_length": 8, "data.crop_size": 160},
    ),
    "tiny Cutie, n = 5, 4 clips at 128": (
        "trainables.one_shot",
        {"network.name": "cutie-tiny", "method.loss.cross_entropy": "points", "method.loss.num_points": 2000},
    ),
    "STCN, n = 3, 1 clip at 256": ("trainables.one_shot.stcn", {"data.batch_size": 1, "data.crop_size": 256}),
    "XMem, n = 4, T-step, 1 clip at 192": (
        "trainables.one_shot.xmem",
        {"data.batch_size": 1, "data.crop_size": 192, "data.clip_length": 4},
    ),
    "Cutie small, n = 5, T-step, 1 clip at 160": (
        "trainables.one_shot.cutie",
        {"network.name": "cutie-small", "data.batch_size": 1, "data.crop_size": 160, "data.clip_length": 5},
    ),
}
FULL = {
    "network.init": "random", "data.multipliers": (), "data.frame_intervals": (), "train.num_workers": 1,
    "train.gpus_per_worker": 0.0, "train.cpus_per_worker": 1.0,
}  # fmt: skip


def measure(config: ExperimentConfig, told: Connection) -> None:
    """Trains and tells the peak of this process, in GiB, and what it had taken before it began."""
    import ray.train.torch  # noqa: F401  (as a worker of a run has)

    from ovos_ray.run.here import local_stream
    from ovos_ray.run.loop import train_run
    from ovos_ray.run.request import RunRequest

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train_run(RunRequest(config, "none", "none"), local_stream(config))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told.send((before / 2**20, peak / 2**20))


def estimate_it(config: ExperimentConfig, told: Connection) -> None:
    """Tells the estimate."""
    from ovos_ray.run.estimate import estimate

    told.send(estimate(config).memory_gib)


def apart(target: Any, config: ExperimentConfig) -> Any:
    """Runs a function in a fresh process and returns what it tells."""
    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=target, args=(config, sender))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    return answer


def main() -> None:
    """Prints one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", type=int, default=list(range(len(CASES))))
    chosen = parser.parse_args().cases
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = synthetic.SyntheticConfig(height=240, width=320, num_frames=10)
        synthetic.generate(root / "dataset", seed=0, num_videos={"train": 4, "val": 1}, config=size)
        pack(open_dataset(root / "dataset"), root / "shards", labels="first", split="train")
        print("| case | estimate GiB | measured GiB | before training | estimate / measured |\n|---|---|---|---|---|")
        for number in chosen:
            name, (recipe, changes) = list(CASES.items())[number]
            base = override(make(recipe, ExperimentConfig), FULL if "." in recipe.partition(".")[2] else {})
            here = {"data.shards": (str(root / "shards"),), "storage": str(root / "runs"), "name": f"case-{number}"}
            config = override(base, {**SMALL, **changes, **here})
            guessed, (before, peak) = apart(estimate_it, config), apart(measure, config)
            print(f"| {name} | {guessed:.2f} | {peak:.2f} | {before:.2f} | {guessed / peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
