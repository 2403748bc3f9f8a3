"""Step time of one-shot training: every frame encoded once, against two plain passes, per network and strategy.

    python benchmarks/fast_path.py --networks stcn-tiny xmem-tiny --side 128 --clip-length 8 --batch-size 2

Variants are interleaved, repetition by repetition, so that a busy machine slows all of them alike. Printed are the
median time of a step with two plain passes, and each variant's ratios to it: of times, and in brackets of
floating-point operations (which no other process disturbs). Memory is the peak above
weights and moments on a GPU; on a CPU what the graph keeps for its backward pass, without the weights. Time is wall
time on a GPU; on a CPU it is processor time, which with one thread is the same as long as nothing else runs.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
from typing import Any

import torch
from common import clock_of, make_batch, name_of
from torch.utils.flop_counter import FlopCounterMode

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.networks import build
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule, train_step

EAGER: dict[str, Any] = {"train.rollout": "eager"}
PLAIN: dict[str, Any] = {**EAGER, "method.share_features": False, "train.channels_last": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "two plain passes": PLAIN,
    "each frame once": {**PLAIN, "method.share_features": True},
    "and channels last": EAGER,
    "and bfloat16 roll-out": {**EAGER, "train.rollout_precision": "bfloat16"},
    "and recomputation": {**EAGER, "train.gradient_checkpointing": True},
    "and compiled": {**EAGER, "train.compile": True},
    "and roll-out as a graph": {"train.rollout": "graph"},
    "and compiled and graph": {"train.rollout": "graph", "train.compile": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["stcn-tiny", "xmem-tiny"])
    parser.add_argument("--strategies", nargs="+", default=["1-step", "2-step", "T-step"])
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS][:5])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--clip-length", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--times-only", action="store_true", help="neither operations nor memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = name_of(device)
    print(f"{name}, {arguments.threads} thread(s), torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{arguments.batch_size} clips of {arguments.clip_length} frames, {arguments.side} pixels square, ", end="")
    print(f"{arguments.objects} objects, {arguments.repeats} repetitions, precision {arguments.precision}\n")
    print("| network | strategy | " + " | ".join(f"{v}" for v in arguments.variants) + " |")
    print("|---|---|" + "---|" * len(arguments.variants))
    for network in arguments.networks:
        for strategy in arguments.strategies:
            if strategy != "1-step" or not build(network).recurrent:
                row = measure(network, strategy, arguments, device)
                print(f"| {network} | {strategy} | " + " | ".join(row) + " |", flush=True)


def measure(network: str, strategy: str, arguments: argparse.Namespace, device: torch.device) -> list[str]:
    """Returns one table cell a variant: seconds for the first, ratios for the others."""
    runs = []
    for variant in arguments.variants:
        config = override(
            ExperimentConfig(),
            {
                "data.clip_length": arguments.clip_length,
                "data.max_objects": arguments.objects,
                "method.backward": strategy,
                "train.precision": arguments.precision,
                **VARIANTS[variant],
            },
        )
        net = build(network).to(device)
        runs.append((config, TrainingModule(net, config), build_optimizer(net, config.optimizer, device)))
    batch = make_batch(arguments, device)
    clock = clock_of(device, arguments.threads)
    times: list[list[float]] = [[] for _ in runs]
    work, memory = [0] * len(runs), [0.0] * len(runs)
    if not arguments.times_only:
        work = [count_operations(module, batch) for _, module, _ in runs]
        if device.type == "cpu":
            memory = [kept_mib(module, batch) for _, module, _ in runs]
    for repetition in range(arguments.repeats + 1):
        for i, (config, module, optimizer) in enumerate(runs):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            began = clock()
            train_step(module, batch, optimizer, config, repetition)
            ended = clock()
            if device.type == "cuda":
                memory[i] = (torch.cuda.max_memory_allocated() - before) / 2**20
            if repetition:  # the first one warms up
                times[i].append(ended - began)
    gc.collect()  # recomputation leaves cycles, which would be counted as the next row's
    base = statistics.median(times[0])
    if arguments.times_only:
        return [f"{base:.3f} s", *(f"{statistics.median(times[i]) / base:.2f}" for i in range(1, len(runs)))]
    cells = [f"{base:.3f} s"]
    cells += [f"{statistics.median(times[i]) / base:.2f} ({work[i] / work[0]:.2f})" for i in range(1, len(runs))]
    return [f"{cell}, {mib:.0f} MiB" for cell, mib in zip(cells, memory, strict=True)]


def count_operations(module: TrainingModule, batch: dict[str, torch.Tensor]) -> int:
    """Returns the floating-point operations of a loss and its gradient; nothing is updated."""
    if module.config.train.compile:
        return 0
    with FlopCounterMode(display=False) as counter:
        loss, _ = module(batch, 0)
        loss.backward()
    module.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def kept_mib(module: TrainingModule, batch: dict[str, torch.Tensor]) -> float:
    """Returns the MiB that the graph of a loss keeps, each storage counted once."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        graph = module(batch, 0)
    del graph
    return sum(storages.values()) / 2**20


if __name__ == "__main__":
    main()
