"""Frames per second and peak memory of inference at 480p, and memory over a long video.

    python benchmarks/inference.py --frames ../shared/multi-object/frames --mask ../shared/multi-object/masks/00000.png

Weights are random, which costs the same time. Cutie is measured next to the `InferenceCore` of rf-cutie (`pip install
'ovos-ray[dev]'`) with the same settings: for speed, both take turns at every frame, so that what else the machine does
meets both; for memory, each runs in a process of its own. The first frames are all memorised, so that memory is full
soon, and are not counted. The long video is small, and its long-term memory so small that it has to forget.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import platform
import queue
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def frames_of(folder: Path, count: int, size: tuple[int, int] | None = None) -> Iterator[torch.Tensor]:
    """The frames forth and back, (3, H, W) in [0, 1]."""
    paths = sorted(folder.glob("*.jpg"))
    images = [Image.open(path) if size is None else Image.open(path).resize(size) for path in paths]
    arrays = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]
    return itertools.islice(itertools.cycle(arrays + arrays[-2:0:-1]), count)


class Ours:
    """Our inference, with published settings; on a GPU as graphs, which is what predictions are made with there."""

    graphed = True

    def __init__(self, name: str, args: argparse.Namespace, **changes: Any) -> None:
        from ovos_ray import networks
        from ovos_ray.evaluate.infer.graphed import GraphedNetwork
        from ovos_ray.evaluate.infer.propagator import Propagator
        from ovos_ray.evaluate.infer.settings import InferenceSettings

        # As `load_network` returns it.
        network = networks.build(name).eval().to(args.device).to(memory_format=torch.channels_last)
        graphed = GraphedNetwork(network) if args.device == "cuda" and self.graphed else network
        self.propagator = Propagator(graphed, InferenceSettings.of(network, **changes))

    def memorise_every(self, interval: int) -> None:
        """Sets the memory interval from the next frame on."""
        self.propagator.settings = dataclasses.replace(self.propagator.settings, memory_interval=interval)

    def step(self, image: torch.Tensor, mask: torch.Tensor | None) -> Any:
        """Goes on to the next frame, (3, H, W), given its mask or none."""
        return self.propagator.step(image, mask)


class KernelByKernel(Ours):
    """The same without graphs."""

    graphed = False


class Published:
    """The `InferenceCore` of rf-cutie, with the same settings."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        warnings.simplefilter("ignore", FutureWarning)
        import cutie.model.utils.resnet as resnet
        from omegaconf import OmegaConf

        resnet.model_zoo.load_url = lambda *_, **__: {}
        resnet.load_weights_add_extra_dim = lambda *_, **__: None
        from cutie.inference.inference_core import InferenceCore
        from cutie.model.cutie import CUTIE

        folder = Path(resnet.__file__).parents[2] / "config"
        model: Any = OmegaConf.load(folder / "model/base.yaml")
        if name == "cutie-small":
            small: Any = OmegaConf.load(folder / "model/small.yaml")
            small.pop("defaults")
            model = OmegaConf.merge(model, small)
        evaluation: Any = OmegaConf.to_container(OmegaConf.load(folder / "eval_config.yaml"))
        config = OmegaConf.create({k: v for k, v in evaluation.items() if k not in ("hydra", "defaults")})
        config.update(model=model, mem_every=5, use_long_term=False)
        self.core = InferenceCore(CUTIE(config).eval().to(args.device), config)

    def memorise_every(self, interval: int) -> None:
        """Sets the memory interval from the next frame on."""
        self.core.mem_every = interval

    def step(self, image: torch.Tensor, mask: torch.Tensor | None) -> Any:
        """Goes on to the next frame, (3, H, W), given its mask or none."""
        ids = None if mask is None else [i for i in mask.unique().tolist() if i]
        return self.core.step(image, mask, ids)


def sides_of(name: str, device: str) -> tuple[str, ...]:
    ours = ("ovos-ray", "without graphs") if device == "cuda" else ("ovos-ray",)
    return (*ours, "rf-cutie") if name.startswith("cutie") else ours


def build(side: str, name: str, args: argparse.Namespace) -> Any:
    torch.set_num_threads(args.threads)
    return {"ovos-ray": Ours, "without graphs": KernelByKernel, "rf-cutie": Published}[side](name, args)


def mask_of(args: argparse.Namespace, size: tuple[int, int] | None = None) -> torch.Tensor:
    opened = Image.open(args.mask)
    image = opened if size is None else opened.resize(size, Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(image).astype(np.int64)).to(args.device)


@torch.inference_mode()
def measure_speed(name: str, args: argparse.Namespace, results: Any) -> None:
    sides, failed = {}, {}
    for side in sides_of(name, args.device):
        try:
            sides[side] = build(side, name, args)
        except Exception as error:
            if side != "rf-cutie":
                raise
            failed[side] = {"failed": f"{type(error).__name__}: {error}"}
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    last: dict[str, torch.Tensor] = {}
    alike: list[float] = []
    for t, image in enumerate(frames_of(args.frames, args.warm_up + args.count)):
        for side, runner in sides.items():
            runner.memorise_every(1 if t < args.warm_up else 5)
            synchronise(args.device)
            start, busy = time.perf_counter(), time.process_time()
            shown = runner.step(image.to(args.device), mask_of(args) if t == 0 else None)
            synchronise(args.device)
            wall[side].append(time.perf_counter() - start)
            cpu[side].append(time.process_time() - busy)
            last[side] = shown.argmax(0)
        if "without graphs" in sides:
            alike.append(float((last["ovos-ray"] == last["without graphs"]).float().mean()))
    found: dict[str, dict[str, Any]] = {
        side: {
            "fps": round(args.count / sum(wall[side][args.warm_up :]), 3),
            "cpu_s_per_frame": round(float(np.mean(cpu[side][args.warm_up :])), 3),
            "cpu_s_of_each": [round(seconds, 2) for seconds in cpu[side][args.warm_up :]],
        }
        for side in sides
    }
    if alike:
        found["ovos-ray"]["least share of equal pixels"] = min(alike)
    if len(sides) == 1:
        found["ovos-ray"]["peak_mib"] = round(peak_mib(args.device))
    results.put(found | failed)


@torch.inference_mode()
def measure_memory(name: str, side: str, args: argparse.Namespace, results: Any) -> None:
    runner = build(side, name, args)
    runner.memorise_every(1)
    for t, image in enumerate(frames_of(args.frames, args.warm_up + 1)):
        runner.step(image.to(args.device), mask_of(args) if t == 0 else None)
    results.put(round(peak_mib(args.device)))


LONG_TERM = {"long_term": True, "max_frames": 10, "min_frames": 5, "max_tokens": 1000, "buffer_tokens": 0}


def long_video(name: str, args: argparse.Namespace, results: Any) -> None:
    torch.set_num_threads(args.threads)
    size = (128, 80)
    runner = Ours(name, args, **({} if name.startswith("stcn") else LONG_TERM))
    resident, positions = {}, []
    for t, image in enumerate(frames_of(args.frames, 2000, size)):
        runner.step(image.to(args.device), mask_of(args, size) if t == 0 else None)
        positions.append(runner.propagator.banks[0].num_positions)
        if (t + 1) % 250 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[t + 1] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    most = {t: max(positions[t - 250 : t]) for t in resident}
    results.put({"resident_mib_after_frames": resident, "most_memory_positions_in_the_250_before": most})


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Failure(str):
    """Why a process could not measure."""


def _told(function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
    except Exception as error:
        arguments[-1].put(_Failure(f"{type(error).__name__}: {error}"))
        raise


def alone(function: Any, *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_told, args=(function, *arguments, results))
    process.start()
    while process.is_alive() or not results.empty():
        with contextlib.suppress(queue.Empty):
            found = results.get(timeout=1)
            process.join()
            if isinstance(found, _Failure):
                raise SystemExit(f"{function.__name__}{arguments[:1]}: {found}")
            return found
    raise SystemExit(f"{function.__name__}{arguments[:1]}: the process ended with exit code {process.exitcode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=Path("../shared/multi-object/frames"))
    parser.add_argument("--mask", type=Path, default=Path("../shared/multi-object/masks/00000.png"))
    parser.add_argument("--networks", nargs="*", default=["stcn", "xmem", "cutie-small", "cutie-base"])
    parser.add_argument("--long", nargs="*", default=["stcn-tiny", "xmem-tiny", "cutie-tiny"])
    parser.add_argument("--count", type=int, default=10, help="frames timed")
    parser.add_argument("--warm-up", type=int, default=10, help="frames before, all memorised")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": platform.machine(), "cpus": os.cpu_count(), "threads": args.threads, "device": args.device,
        "python": sys.version.split()[0], "torch": torch.__version__, "load_average": os.getloadavg()[0],
        "warm_up": args.warm_up, "count": args.count,
        "size": Image.open(next(args.frames.glob("*.jpg"))).size,
    }  # fmt: skip
    for name in args.networks:
        report[name] = alone(measure_speed, name, args)
        sides = [side for side, values in report[name].items() if "failed" not in values]
        for side in sides if len(sides) > 1 else ():
            report[name][side]["peak_mib"] = alone(measure_memory, name, side, args)
        print(name, report[name], flush=True)
    for name in args.long:
        report[f"{name}, 2000 frames"] = alone(long_video, name, args)
        print(name, report[f"{name}, 2000 frames"], flush=True)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
