"""One label per video, and what makes more of it: trains, scores, and keeps every run as a line of a CSV file at once.

    python benchmarks/one_label.py --out results [--networks xmem-tiny stcn-tiny] [--steps 400 1200] [--seeds 0 1 2 3 4]
        [--methods one-shot static-only …] [--davis-train ROOT --davis-val ROOT] [--num-processes 2] [--device cuda]
    python benchmarks/one_label.py --out results --table

Run from the checkout, without Ray and without MLflow. Without DAVIS folders the videos are the synthetic ones, made in
`--work`. Stopped and started again, it goes on where it was: what `--out` has is not run again. Runs go by steps, then
seed by seed, so that an interrupted study has compared everything once before anything twice.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from one_label_data import davis_folders, synthetic_folders
from one_label_table import gather, read_rows, write_tables

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.digest import resolve_paths
from ovos_ray.packing.label_choice import Labels
from ovos_ray.run.here import fit_here
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder
from trainables import one_shot, synthetic

_WARM_UP = {"data.static_share": ((0.0, 1.0), (0.25, 0.0))}
_AFFINE = {"data.static_share": ((0.0, 1.0), (0.25, 0.25)), "data.static_clips": "affine"}
_HALF = {"data.static_share": ((0.0, 1.0), (0.5, 0.5))}
_LAYERS = {"data.static_clips": "layers"}
_PASTED = {"data.static_clips": "pasted"}
_FURTHER_LABELS = {"data.clip_start": "labels", "method.further_labels": "compare"}
_LAYERS_FURTHER, _HALF_FURTHER = {**_AFFINE, **_LAYERS, **_FURTHER_LABELS}, {**_HALF, **_FURTHER_LABELS}

METHODS: dict[str, dict[str, Any]] = {
    "one-shot": {},
    "static-clips": _AFFINE,
    "static-only": one_shot.STATIC_ONLY,
    "supervised-warm": {"method.name": "supervised", **_WARM_UP},
    "layers-only": {**one_shot.STATIC_ONLY, **_LAYERS},
    "pasted-only": {**one_shot.STATIC_ONLY, **_PASTED},
    "layers-clips": {**_AFFINE, **_LAYERS},
    "supervised-warm-layers": {"method.name": "supervised", **_WARM_UP, **_LAYERS},
    "supervised": {"method.name": "supervised"},
    "one-shot-warm": _WARM_UP,
    "supervised-warm-any": {"method.name": "supervised", "data.clip_start": "any", **_WARM_UP},
    "supervised-warm-pasted": {"method.name": "supervised", **_WARM_UP, **_PASTED},
    "pasted-clips": {**_AFFINE, **_PASTED},
    "static-half": _HALF,
    "layers-half": {**_HALF, **_LAYERS},
    "pasted-half": {**_HALF, **_PASTED},
    "long-warm": {"data.static_share": ((0.0, 1.0), (0.5, 0.25))},
    "T-step-clips": {"method.backward": "T-step", **_AFFINE},
    "oracle": {"method.reference": "true"},
    "oracle-clips": {"method.reference": "true", **_AFFINE},
    "layers-only-4": {**one_shot.STATIC_ONLY, **_LAYERS},
    "layers-clips-2": _LAYERS_FURTHER,
    "layers-clips-4": _LAYERS_FURTHER,
    "layers-clips-all": _LAYERS_FURTHER,
    "static-only-2": {**one_shot.STATIC_ONLY, "data.clip_start": "labels"},
    "supervised-half": {"method.name": "supervised", **_HALF},
    "one-shot-2": _FURTHER_LABELS,
    "one-shot-grown": {"data.frame_sampling": "grown"},
    "one-shot-all-memory": {"method.rollout_memory": "all"},
    "static-half-2": _HALF_FURTHER,
    "static-half-4": _HALF_FURTHER,
    "one-shot-traced": {},
    "static-clips-traced": _AFFINE,
}
"""What each method changes in the recipe. `supervised…` reads all labels, most others one a video. The first quarter of
`…-warm` is static steps, those of `static-clips` go on with every fourth step, and `…-half` has them in the first
half and then at every second step; with `layers`, objects move on their own in them. `…-any` has clips that start at
any labelled frame, all others have those of `one-shot`. `oracle…` starts the walk back from the true mask, so it too
reads all labels. `…-2`, `…-4` and `…-all` have so many labels a video; their clips start at any of them and compare
those they pass, as in `search_spaces.label_budget`. `…-grown` draws frames as XMem and Cutie do; the forward walk of
`…-all-memory` reads all frames before. `…-traced` computes what its namesake does, on shards with all labels, which it
only logs: how right forward masks are. Every run keeps an average of its weights, `ema_jf`."""

KEY = ("data", "network", "steps", "seed", "method")
COLUMNS = (*KEY, "jf", "j", "f", "ema_jf", "labels", "seconds", "device", "versions")
VIDEO_COLUMNS = (*KEY, "video", "jf", "j", "f")
CURVE_COLUMNS = (*KEY, "step", "name", "value")


def labels_of(method: str) -> Labels:
    """Returns the labels a video in the shards of a method, as `pack` takes them."""
    if method.startswith(("supervised", "oracle")) or method.endswith(("-traced", "-all")):
        return "all"
    last = method.rpartition("-")[2]
    return int(last) if last.isdigit() else "first"


@dataclass(frozen=True)
class Run:
    """One run of the study.

    Attributes:
        key: Its values of `KEY`.
        config: With absolute paths.
    """

    key: tuple[str, ...]
    config: ExperimentConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the CSV files and tables")
    parser.add_argument("--work", type=Path, default=Path("study"), help="folder of data and runs")
    parser.add_argument("--networks", nargs="+", default=["xmem-tiny", "stcn-tiny"])
    parser.add_argument("--steps", nargs="+", type=int, default=[400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:8], choices=list(METHODS))
    parser.add_argument("--then", nargs="+", default=[], choices=list(METHODS), help="methods after all those")
    parser.add_argument(
        "--davis-train", type=Path, help="DAVIS 2016, or a smaller copy: all its sequences are trained on"
    )
    parser.add_argument("--davis-val", type=Path, help="the same for the sequences that are scored")
    parser.add_argument("--num-processes", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, help="begin no run after this many; unfinished ones go on next time")
    parser.add_argument("--table", action="store_true", help="train nothing; make the tables of what is there")
    parser.add_argument("--gather", nargs="+", type=Path, default=[], help="folders whose lines are added to --out")
    parser.add_argument("--into", type=Path, help="a page that gets the tables, between its marks")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes to every run, in a folder of its own"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.gather:
        gather(arguments.gather, arguments.out)
    if not arguments.table:
        study(arguments)
    write_tables(arguments.out, arguments.into)


def study(arguments: argparse.Namespace) -> None:
    """Runs what is not in the CSV files yet; a line there is written when its run is finished."""
    began = time.monotonic()
    done = {tuple(row[name] for name in KEY) for row in read_rows(arguments.out / "runs.csv")}
    runs = [run for run in planned(arguments) if run.key not in done]
    print(f"{len(done)} runs are there, {len(runs)} to go", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.num_processes, mp_context=context) as pool:
        finish = functools.partial(train, began=time.time(), seconds=arguments.seconds)
        waiting = {pool.submit(finish, run): run for run in runs}
        for number, future in enumerate(as_completed(waiting), start=1):
            run = waiting[future]
            name = " ".join(run.key)
            try:
                result = future.result()
            except Exception as error:  # one failed run must not end the others
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                continue
            if result is None:
                continue
            append(arguments.out / "videos.csv", VIDEO_COLUMNS, (run.key + row for row in result["videos"]))
            append(arguments.out / "curves.csv", CURVE_COLUMNS, (run.key + row for row in result["curves"]))
            append(arguments.out / "runs.csv", COLUMNS, [run.key + result["run"]])
            elapsed = time.monotonic() - began
            print(f"{elapsed:6.0f} s  {number}/{len(runs)}  {name}: J&F {result['run'][0]}", flush=True)


def planned(arguments: argparse.Namespace) -> Iterator[Run]:
    """Yields the runs that the arguments ask for, in order."""
    work = arguments.work.resolve()
    davis = arguments.davis_train is not None
    if davis:
        dataset, shards = davis_folders(arguments.davis_train, arguments.davis_val, work)
    else:
        dataset, shards = synthetic_folders(work)
    base = override(
        _davis(dataset) if davis else _synthetic(dataset), {"storage": str(work / "runs"), "tracking_uri": ""}
    )
    data = "davis2016" if davis else "synthetic"
    for steps, seed, network, method in _in_order(arguments):
        key = (data, network, str(steps), str(seed), method)
        changes = {
            **METHODS[method],
            "name": "-".join(key),
            "seed": seed,
            "network.name": network,
            "data.shards": (str(shards(labels_of(method))),),
            "train.steps": steps,
            "optimizer.decay_steps": (steps * 4 // 5,),
            "train.ema_decay": 0.99,
            "train.checkpoint_every": 200,
            "train.log_every": max(1, steps // 16),
            "train.gpus_per_worker": float(arguments.device == "cuda"),
            # As on a CPU, so that both give the same but for the order of sums.
            "train.precision": "float32",
        }
        config = override(override(base, changes), arguments.overrides)
        yield Run(key, resolve_paths(config, Path.cwd()))


def _in_order(arguments: argparse.Namespace) -> Iterator[tuple[int, int, str, str]]:
    for steps, methods in itertools.product(arguments.steps, (arguments.methods, arguments.then)):
        for seed, network, method in itertools.product(arguments.seeds, arguments.networks, methods):
            yield steps, seed, network, method


def _synthetic(dataset: Path) -> ExperimentConfig:
    return override(
        synthetic.synthetic(),
        {"validation.root": None, "validation.every": 0, "evaluation.root": str(dataset)},
    )


def _davis(dataset: Path) -> ExperimentConfig:
    return override(
        one_shot.one_shot(),
        {
            "data.max_objects": 1,
            "optimizer.clip_norm": 1.0,
            "evaluation.root": str(dataset),
            "evaluation.protocol": "davis2016",
            "evaluation.shortest_side": 144,
        },
    )


def train(run: Run, *, began: float, seconds: float | None) -> dict[str, Any] | None:
    """Trains and scores one run in this process; returns the rows it adds, without its key."""
    if seconds is not None and time.time() - began > seconds:
        return None
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    curves: list[tuple[Any, ...]] = []

    def watch(record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name.startswith("train/") and not name.endswith(("clips_per_s", "data_wait", "learning_rate")):
                curves.append((record["step"], name.removeprefix("train/"), f"{value:.4f}"))

    fit_here(RunRequest(run.config, "one-label", run.config.name, watcher=watch))
    folder = RunFolder.of(run.config)
    result = folder.result()
    assert result is not None, "a run that ends without an error has a result"
    scores = result["scores"]
    device = torch.cuda.get_device_name() if run.config.train.gpus_per_worker else "cpu"
    versions = f"torch {torch.__version__}"
    return {
        "run": (
            *(f"{scores[name]:.2f}" if name in scores else "" for name in ("jf", "j", "f", "ema/jf")),
            str(result["labels"]["training"]),
            f"{result['seconds']:.0f}",
            device,
            versions,
        ),
        "videos": list(video_rows(Path(folder.storage.path("scores.csv")))),
        "curves": curves,
    }


def video_rows(path: Path) -> Iterator[tuple[str, ...]]:
    """Yields video, J&F, J and F, the means over its objects."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["sequence"]].append((float(row["j_mean"]), float(row["f_mean"])))
    for video, values in found.items():
        j, f = np.mean(values, 0)
        yield (video, f"{(j + f) / 2:.2f}", f"{j:.2f}", f"{f:.2f}")


def append(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Adds lines to a CSV file, and makes sure that they are on the disk."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(columns)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
