"""What the benchmarks of training steps share: a batch of noise, a clock, and the name of the machine."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ovos_ray.train.copies import on_device

__all__ = ["clock_of", "make_batch", "name_of"]


def make_batch(arguments: argparse.Namespace, device: torch.device) -> dict[str, torch.Tensor]:
    """Noise with one square an object: time does not depend on what is to be seen.

    What the host has to know of a batch stays there, as in a run: else every step would wait for the device.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch_size, arguments.clip_length, 3, arguments.side, arguments.side)
    label = torch.zeros(arguments.batch_size, arguments.side, arguments.side, dtype=torch.uint8)
    for index in range(arguments.objects):
        first = index * arguments.side // arguments.objects
        label[:, first : first + arguments.side // (2 * arguments.objects), : arguments.side // 2] = 1 + index
    batch = {
        "frames": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "label": label,
        "num_objects": torch.full((arguments.batch_size,), arguments.objects),
        "weight": torch.ones(arguments.batch_size),
        "position": torch.arange(arguments.batch_size),
    }
    return next(on_device([batch], device))


def clock_of(device: torch.device, threads: int) -> Callable[[], float]:
    """Returns wall time on a GPU and for several threads, processor time for one: other processes disturb it less."""
    if device.type == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronised
    return time.process_time if threads == 1 else time.perf_counter


def name_of(device: torch.device) -> str:
    """Returns the name of the GPU, or of the CPU where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
