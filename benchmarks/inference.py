"""Frames per second and peak memory of inference at 480p, and memory over a long video.

    python benchmarks/inference.py --frames ../shared/multi-object/frames --mask ../shared/multi-object/masks/00000.png

Weights are random, which costs the same time. Cutie is measured next to the `InferenceCore` of rf-cutie (`pip install
'ovos-ray[dev]'`) with the same settings: for speed, both take turns at every frame, so that what else the machine does
meets both; for memory, each runs in a process of its own. The first frames, in which memory fills, are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import platform
import queue
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

WARM_UP = 12


def frames_of(folder: Path, count: int, size: tuple[int, int] | None = None) -> Iterator[torch.Tensor]:
    """The frames forth and back, (3, H, W) in [0, 1]."""
    paths = sorted(folder.glob("*.jpg"))
    images = [Image.open(path) if size is None else Image.open(path).resize(size) for path in paths]
    arrays = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]
    return itertools.islice(itertools.cycle(arrays + arrays[-2:0:-1]), count)


def ours(name: str, args: argparse.Namespace) -> Any:
    from ovos_ray import networks
    from ovos_ray.evaluate.propagator import Propagator
    from ovos_ray.evaluate.settings import InferenceSettings

    network = networks.build(name).eval().to(args.device)
    propagator = Propagator(network, InferenceSettings.of(network))
    return lambda image, mask: propagator.step(image, mask)


def rf_cutie(name: str, args: argparse.Namespace) -> Any:
    import cutie.model.utils.resnet as resnet
    from omegaconf import OmegaConf

    resnet.model_zoo.load_url = lambda *_, **__: {}
    resnet.load_weights_add_extra_dim = lambda *_, **__: None
    from cutie.inference.inference_core import InferenceCore
    from cutie.model.cutie import CUTIE

    folder = Path(resnet.__file__).parents[2] / "config"
    model = OmegaConf.load(folder / "model/base.yaml")
    if name == "cutie-small":
        small = OmegaConf.load(folder / "model/small.yaml")
        small.pop("defaults")
        model = OmegaConf.merge(model, small)
    config = OmegaConf.load(folder / "eval_config.yaml")
    config = OmegaConf.create(
        {k: v for k, v in OmegaConf.to_container(config).items() if k not in ("hydra", "defaults")}
    )
    config.update(model=model, mem_every=5, use_long_term=False)
    core = InferenceCore(CUTIE(config).eval().to(args.device), config)

    def step(image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        ids = None if mask is None else [i for i in mask.unique().tolist() if i]
        return core.step(image, mask, ids)

    return step


def sides_of(name: str) -> tuple[str, ...]:
    return ("ovos-ray", "rf-cutie") if name.startswith("cutie") else ("ovos-ray",)


def build(side: str, name: str, args: argparse.Namespace) -> Any:
    torch.set_num_threads(args.threads)
    return {"ovos-ray": ours, "rf-cutie": rf_cutie}[side](name, args)


def mask_of(args: argparse.Namespace, size: tuple[int, int] | None = None) -> torch.Tensor:
    image = Image.open(args.mask)
    image = image if size is None else image.resize(size, Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(image).astype(np.int64)).to(args.device)


@torch.inference_mode()
def measure_speed(name: str, args: argparse.Namespace, results: Any) -> None:
    steps = {side: build(side, name, args) for side in sides_of(name)}
    wall: dict[str, list[float]] = {side: [] for side in steps}
    cpu: dict[str, list[float]] = {side: [] for side in steps}
    for t, image in enumerate(frames_of(args.frames, args.count + WARM_UP)):
        for side, step in steps.items():
            synchronise(args.device)
            start, busy = time.perf_counter(), time.process_time()
            step(image.to(args.device), mask_of(args) if t == 0 else None)
            synchronise(args.device)
            wall[side].append(time.perf_counter() - start)
            cpu[side].append(time.process_time() - busy)
    results.put(
        {
            side: {
                "fps": round(args.count / sum(wall[side][WARM_UP:]), 3),
                "fps_of_median_frame": round(1 / float(np.median(wall[side][WARM_UP:])), 3),
                "cpu_s_per_frame": round(float(np.mean(cpu[side][WARM_UP:])), 3),
            }
            for side in steps
        }
    )


@torch.inference_mode()
def measure_memory(name: str, side: str, args: argparse.Namespace, results: Any) -> None:
    step = build(side, name, args)
    for t, image in enumerate(frames_of(args.frames, WARM_UP + 18)):
        step(image.to(args.device), mask_of(args) if t == 0 else None)
    results.put(round(peak_mib(args.device)))


def long_video(name: str, args: argparse.Namespace, results: Any) -> None:
    step = build("ovos-ray", name, args)
    size = (128, 80)
    resident = {}
    for t, image in enumerate(frames_of(args.frames, 2000, size)):
        step(image.to(args.device), mask_of(args, size) if t == 0 else None)
        if (t + 1) % 250 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[t + 1] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    results.put({"resident_mib_after_frames": resident})


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(function: Any, *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=function, args=(*arguments, results))
    process.start()
    while process.is_alive() or not results.empty():
        with contextlib.suppress(queue.Empty):
            found = results.get(timeout=1)
            process.join()
            return found
    raise SystemExit(f"{function.__name__}{arguments[:1]}: the process ended with exit code {process.exitcode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=Path("../shared/multi-object/frames"))
    parser.add_argument("--mask", type=Path, default=Path("../shared/multi-object/masks/00000.png"))
    parser.add_argument("--networks", nargs="*", default=["stcn", "xmem", "cutie-small", "cutie-base"])
    parser.add_argument("--long", nargs="*", default=["stcn-tiny", "xmem-tiny", "cutie-tiny"])
    parser.add_argument("--count", type=int, default=20, help="frames timed, after 12 to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": platform.machine(), "cpus": os.cpu_count(), "threads": args.threads, "device": args.device,
        "python": sys.version.split()[0], "torch": torch.__version__, "load_average": os.getloadavg()[0],
        "size": Image.open(next(args.frames.glob("*.jpg"))).size,
    }  # fmt: skip
    for name in args.networks:
        report[name] = alone(measure_speed, name, args)
        for side in sides_of(name):
            report[name][side]["peak_mib"] = alone(measure_memory, name, side, args)
        print(name, report[name], flush=True)
    for name in args.long:
        report[f"{name}, 2000 frames"] = alone(long_video, name, args)
        print(name, report[f"{name}, 2000 frames"], flush=True)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
