"""Part (a) of `gpu_proof.py`: seconds of a training step, variant by variant, and what the GPU does meanwhile."""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from common import make_batch
from gpu_profile import profile_of, synchronisations

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.networks import build
from ovos_ray.train.numerics import set_numerics
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, train_step

__all__ = ["measure_steps"]

Save = Callable[[str, Any], None]

PLAIN = {"method.share_features": False, "train.channels_last": False, "train.rollout": "eager"}
VARIANTS: dict[str, dict[str, Any]] = {
    "two plain passes": PLAIN,
    "kernel by kernel": {"train.rollout": "eager"},
    "graph": {"train.rollout": "graph"},
}
# Each takes a minute to compile, so they come last, each in one process with the others to compare.
COMPILED: dict[str, dict[str, Any]] = {
    "compiled": {"train.rollout": "eager", "train.compile": True},
    "compiled, graph": {"train.rollout": "graph", "train.compile": True},
    "reduce-overhead": {"train.rollout": "eager"},
}


def settings(args: argparse.Namespace, changes: dict[str, Any]) -> ExperimentConfig:
    """The 2-step method on clips of noise."""
    common = {"data.clip_length": args.clip_length, "data.max_objects": args.objects, "method.backward": args.strategy}
    return override(ExperimentConfig(), {**common, "train.cpus_per_worker": 1.0 if args.tiny else 4.0, **changes})


class Variant:
    """One way to compute a step, with weights of its own."""

    def __init__(self, name: str, network: str, args: argparse.Namespace, changes: dict[str, Any]) -> None:
        self.name, self.device = name, torch.device(args.device)
        self.config = settings(args, changes)
        set_numerics(self.config.train, self.device)
        net = build(network).to(self.device)
        self.module = TrainingModule(net, self.config)
        if name == "reduce-overhead":
            for part in net.children():
                part.compile(mode="reduce-overhead")
        self.optimizer = build_optimizer(net, self.config.optimizer, self.device)
        self.steps = itertools.count()

    def step(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Makes one step, without waiting for it."""
        if self.name == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return train_step(self.module, batch, self.optimizer, self.config, next(self.steps), wait=False)

    def seconds(self, batch: dict[str, torch.Tensor], steps: int = 1) -> float:
        """Returns the seconds a step of some that follow one another, from an idle device to an idle device.

        A run makes its steps so: of many, all but the first find the device at work and are launched meanwhile.
        """
        synchronise(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            self.step(batch)
        synchronise(self.device)
        seconds = (time.perf_counter() - began) / steps
        self.module.skipped.read()
        return seconds


def synchronise(device: torch.device) -> None:
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_steps(args: argparse.Namespace, save: Save) -> None:
    """Measures all networks without compilation, then checks equality, then compiles as long as there is time."""
    began = time.monotonic()
    for network in args.networks:
        measure_network(network, VARIANTS, args, functools.partial(save, network))
    save("graph against eager, float32", compare(args))
    for network in args.networks if args.compile else ():
        left = args.limit - (time.monotonic() - began)
        if left < args.compile_needs:
            save(f"{network}, compiled", {"left out": f"{left:.0f} s were left"})
            continue
        measure_network(network, {**VARIANTS, **COMPILED}, args, functools.partial(save, f"{network}, compiled"))


def measure_network(
    network: str, variants: dict[str, dict[str, Any]], args: argparse.Namespace, keep: Callable[[Any], None]
) -> None:
    """Measures every variant, in turns, and has what is known kept after each stage.

    Seconds and ratios are those of steps back to back; those of a step alone, which waits for the device before and
    after, stand beside them.
    """
    batch = make_batch(args, torch.device(args.device))
    found: dict[str, Any] = {}
    made: list[Variant] = []
    for name, changes in variants.items():
        try:
            variant, found[name] = warmed_up(name, network, batch, args, changes)
            made.append(variant)
        except Exception as error:
            found[name] = failure(error)
        keep(found)
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for steps, repeats in ((1, args.repeats), (args.back_to_back, args.rounds)):
        for _, variant in itertools.product(range(repeats), made):
            if "failed" not in found[variant.name]:
                try:
                    times[variant.name, steps].append(variant.seconds(batch, steps))
                except Exception as error:
                    found[variant.name] |= failure(error)
    for steps, key in ((1, " alone"), (args.back_to_back, "")):
        base = statistics.median(times["two plain passes", steps] or [math.nan])
        for variant in made:
            if own := times[variant.name, steps]:
                median = statistics.median(own)
                found[variant.name] |= {
                    f"seconds{key}": median,
                    f"fastest{key}": min(own),
                    f"ratio{key}": median / base,
                }
    keep(found)
    for variant in made:
        own = found[variant.name]
        if "failed" not in own:
            try:
                own |= synchronisations(variant.step, batch) | profile_of(variant.step, batch)
                own["busy"] = own["kernels s"] / own["seconds"]
            except Exception as error:
                own |= failure(error)
        if failed := variant.module.graphs.failed:
            own["graph failed"] = failed
        keep(found)


def failure(error: Exception) -> dict[str, str]:
    """Returns what a table says of a variant that could not be measured."""
    return {"failed": f"{type(error).__name__}: {error}"[:300]}


def warmed_up(
    name: str, network: str, batch: dict[str, torch.Tensor], args: argparse.Namespace, changes: dict[str, Any]
) -> tuple[Variant, dict[str, Any]]:
    """Returns a variant after its first steps, with what they took: seconds, memory, and the loss of the first."""
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    began = time.perf_counter()
    variant = Variant(name, network, args, changes)
    loss = float(variant.step(batch)["loss"])
    for _ in range(args.warm_up):
        variant.step(batch)
    synchronise(device)
    found: dict[str, Any] = {"first steps s": round(time.perf_counter() - began, 2), "first loss": loss}
    if device.type == "cuda":
        found["peak MiB"] = round((torch.cuda.max_memory_allocated() - allocated) / 2**20)
        found["reserved MiB"] = round((torch.cuda.memory_reserved() - reserved) / 2**20)
    return variant, found


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Returns how far losses and weights of three steps with a graph are from those without, in exact float32."""
    found = {}
    small = copy.copy(args)
    small.side, small.batch_size = min(args.side, 128), 2
    batch = make_batch(small, torch.device(args.device))
    with torch.backends.cudnn.flags(allow_tf32=False, benchmark=False, deterministic=True):
        for network in args.networks:
            runs = []
            for rollout in ("eager", "graph"):
                changes = {"train.rollout": rollout, "train.precision": "float32", "optimizer.learning_rate": 1e-5}
                variant = Variant(rollout, network, small, changes)
                torch.backends.cudnn.benchmark = False
                losses = [float(variant.step(batch)["loss"]) for _ in range(3)]
                weights = torch.cat([p.detach().flatten().double() for p in variant.module.parameters()])
                runs.append((losses, weights, variant.module.graphs.failed))
            (expected, target, _), (losses, weights, failed) = runs
            found[network] = {
                "loss": max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True)),
                "weights": float((weights - target).norm() / target.norm()),
                "graph failed": failed,
            }
    return found
