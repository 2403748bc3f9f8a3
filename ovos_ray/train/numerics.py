"""How a process computes: on how many threads, and whether the same bits come out each time."""

from __future__ import annotations

import math

import torch

from ovos_ray.config import TrainConfig

__all__ = ["set_numerics"]


def set_numerics(train: TrainConfig, device: torch.device) -> None:
    """Sets the process up as the configuration asks; call it once, before the network is built."""
    # Ray starts workers with one thread, whatever they reserve.
    torch.set_num_threads(train.num_threads or max(1, math.ceil(train.cpus_per_worker)))
    # On a GPU nothing is promised to be equal, and cuDNN chooses its algorithms by rule: to try them all took XMem's
    # first steps 34 s on an H100, anew for every number of objects, and gained nothing that was seen.
    if device.type != "cuda":
        if train.compile:
            torch.use_deterministic_algorithms(train.deterministic)
        else:  # without telling torch.compile too, whose import takes 1.5 s and 180 MiB of every process
            torch.set_deterministic_debug_mode("error" if train.deterministic else "default")
        # Filling memory that is written before it is read finds defects in operators, and costs a twentieth of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
