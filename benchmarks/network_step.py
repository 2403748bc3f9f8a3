"""One training step of each network: encoding, forward roll-out, backward propagation, gradient, update.

    python benchmarks/network_step.py --side 64 --networks stcn-tiny xmem-tiny cutie-tiny   # a quick look
    python benchmarks/network_step.py                                  # full size, 384 x 384; minutes on a CPU
    python benchmarks/network_step.py --precision float32 bfloat16 --compile off on          # on a GPU
    python benchmarks/network_step.py --strategy T-step --recompute off on                   # what recomputation saves

Every row is measured in a process of its own, so that peaks of memory do not mix. On a CPU the peak is that of the
whole process, weights and optimiser included, and with one thread the time is processor time; on a GPU the peak is
that of the allocator.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import platform
import resource
import statistics
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from common import clock_of, make_batch, name_of

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.networks import build
from ovos_ray.train.optimizer import build_optimizer
from ovos_ray.train.step import TrainingModule


def measure(options: dict[str, Any]) -> tuple[float, ...]:
    """Returns seconds of loss, gradient and update in the best step, their sum, its median, and the peak in MiB."""
    torch.set_num_threads(options["threads"])
    device = torch.device(options["device"])
    config = override(
        ExperimentConfig(),
        {
            "data.clip_length": options["clip_length"],
            "data.max_objects": options["objects"],
            "method.backward": options["strategy"],
            "train.precision": options["precision"],
            "train.rollout": options["rollout"],
            "train.compile": options["compile"] == "on",
            "train.gradient_checkpointing": options["recompute"] == "on",
        },
    )
    network = build(options["network"]).to(device).train()
    module, optimizer = TrainingModule(network, config), build_optimizer(network, config.optimizer, device)
    batch, clock = make_batch(argparse.Namespace(**options), device), clock_of(device, options["threads"])
    rows = []
    for step in range(options["warm_up"] + options["repeats"]):
        optimizer.zero_grad(set_to_none=True)
        marks = [clock()]
        loss, _ = module(batch, step)
        marks.append(clock())
        loss.backward()
        marks.append(clock())
        optimizer.step()
        marks.append(clock())
        if step >= options["warm_up"]:
            rows.append([after - before for before, after in itertools.pairwise(marks)])
    if device.type == "cuda":
        mib = torch.cuda.max_memory_allocated() / 2**20
    else:
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    best = min(rows, key=sum)
    return (*best, sum(best), statistics.median(map(sum, rows)), mib)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["stcn", "xmem", "cutie-base", "cutie-small"])
    parser.add_argument("--clip-length", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--compile", nargs="+", default=["off"], choices=["off", "on"])
    parser.add_argument("--strategy", default="2-step")
    parser.add_argument("--recompute", nargs="+", default=["off"], choices=["off", "on"])
    parser.add_argument("--rollout", default="eager", choices=["eager", "graph"])
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="the best step is shown, and the median of their times")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    name = name_of(torch.device(arguments.device))
    print(f"{name}, {arguments.threads} threads, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"batch {arguments.batch_size}, {arguments.side} x {arguments.side}, {arguments.objects} objects, ", end="")
    print(f"{arguments.strategy}\n")
    columns = ["network", "n", "precision", "compiled", "recomputed", "loss s", "gradient s", "update s"]
    columns += ["step s (median)", "peak MiB"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    context = multiprocessing.get_context("spawn")
    for cell in itertools.product(
        arguments.networks, arguments.clip_length, arguments.precision, arguments.compile, arguments.recompute
    ):
        row = dict(zip(("network", "clip_length", "precision", "compile", "recompute"), cell, strict=True))
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            loss, gradient, update, step, median, mib = pool.submit(measure, {**vars(arguments), **row}).result()
        print(
            f"| {' | '.join(map(str, cell))} | {loss:.2f} | {gradient:.2f} | {update:.2f} "
            f"| {step:.2f} ({median:.2f}) | {mib:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
