"""What a run will cost, before anything starts: on a GPU one real step, on a CPU two small ones scaled up.

What a step stores grows with the pixels p of a frame as a·p + b·p² (features, and affinities of every position with
every other); so does its time on a CPU. Two sizes give a and b. `benchmarks/memory.py` compares with measured runs. A
GPU that small clips do not fill says nothing of large ones, and is fast enough to be asked for the real size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.networks.base import num_trained
from ovos_ray.run.out_of_memory import out_of_memory
from ovos_ray.train.numerics import set_numerics
from ovos_ray.train.step import TrainingModule

__all__ = ["Cost", "checkpoint_bytes", "estimate", "num_parameters"]

_PROCESS_GIB = 0.82  # interpreter, torch and Ray in one worker, seen on CPU
_OPTIMISER_COPIES = 4  # weights, gradients, and Adam's two moments
_CHECKPOINT_COPIES = 3  # weights and moments, beside what the allocator has kept of a step
_BESIDE_STORED = 1.6  # a step's activations, their gradients and workspaces, relative to what it stores; seen on CPU


@dataclass(frozen=True)
class Cost:
    """The estimate for one run.

    Attributes:
        memory_gib: Peak memory of one worker, frames in flight aside.
        seconds: Training on this machine's device, evaluation and start-up aside.
        device: The device that was measured.
        parameters: Trained parameters.
    """

    memory_gib: float
    seconds: float
    device: str
    parameters: int

    def __str__(self) -> str:
        minutes = self.seconds / 60
        duration = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1 else "under 1 min"
        return (
            f"about {self.memory_gib:.1f} GiB per worker and {duration} per run at this machine's speed "
            f"({self.device}; {self.parameters:,} parameters)"
        )


def estimate(config: ExperimentConfig) -> Cost:
    """Measures a few steps; takes seconds.

    Raises:
        ResourceError: A step does not fit into the GPU's memory; names the settings to lower.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and config.train.gpus_per_worker else "cpu")
    network = networks.build(config.network.name).to(device)
    config = override(config, {"train.compile": False})
    module = TrainingModule(network, config)
    parameters = num_trained(network)
    set_numerics(config.train, device)
    clips = config.train.clips_per_worker(config.data.batch_size)
    if device.type == "cuda":
        memory, seconds = _measure_on_gpu(module, config, clips, device)
        memory += 2 * 4 * parameters  # the optimiser's moments; weights and gradients have been there
        return Cost(memory / 2**30, config.train.steps * seconds, str(device), parameters)
    sides = [64, 96]
    _measure(module, config, sides[0], device)  # the first step pays for allocations and kernels' own set-up
    measured = np.array([_measure(module, config, side, device) for side in sides])
    pixels = np.array([side**2 for side in sides], dtype=float)
    growth = np.linalg.solve(np.stack([pixels, pixels**2], axis=1), measured)
    # Measuring noise must not turn growth into shrinkage.
    growth = np.where(growth[1] < 0, np.stack([measured[-1] / pixels[-1], np.zeros(2)]), growth)
    size = float(config.data.crop_size**2)
    bytes_per_clip, seconds_per_clip = size * growth[0] + size**2 * growth[1]
    copies = _OPTIMISER_COPIES + _CHECKPOINT_COPIES
    memory = _PROCESS_GIB + (copies * 4 * parameters + _BESIDE_STORED * clips * bytes_per_clip) / 2**30
    return Cost(float(memory), float(config.train.steps * clips * seconds_per_clip), str(device), parameters)


def checkpoint_bytes(config: ExperimentConfig) -> int:
    """Returns the size of one checkpoint: float32 weights, and Adam's two moments of those that are trained."""
    network = networks.structure(config.network.name)
    state = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return int(state + 8 * num_trained(network))


def num_parameters(config: ExperimentConfig) -> int:
    """Returns the number of trained parameters."""
    return num_trained(networks.structure(config.network.name))


def _measure_on_gpu(
    module: TrainingModule, config: ExperimentConfig, clips: int, device: torch.device
) -> tuple[float, float]:
    """Returns peak bytes and seconds of a step of the real size."""
    batch = _batch(config, config.data.crop_size, clips, device)
    try:
        _step(module, batch, device)  # the first step pays for allocations and the choice of kernels
        torch.cuda.reset_peak_memory_stats(device)
        seconds = _step(module, batch, device)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(config, str(error)) from None
    # Roll-outs of fewer objects are captured into the same memory, which no step uses between two of them.
    return float(torch.cuda.max_memory_allocated(device) + module.graphs.pool_bytes()), seconds


def _measure(module: TrainingModule, config: ExperimentConfig, side: int, device: torch.device) -> tuple[float, float]:
    """Returns bytes stored for the backward pass and seconds of a step with one clip of `side` x `side` pixels."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    stored: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = _batch(config, side, 1, device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        seconds = _step(module, batch, device)
    return float(sum(stored.values())), seconds


def _step(module: TrainingModule, batch: dict[str, torch.Tensor], device: torch.device) -> float:
    """Returns the seconds of a loss and its gradient."""
    began = time.perf_counter()
    loss, _ = module(batch, 0)
    loss.backward()
    module.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _batch(config: ExperimentConfig, side: int, clips: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Returns clips of noise, with as many objects as there may be."""
    n = config.data.clip_length
    further = config.method.compares_further_labels
    num_labels = n if config.method.needs_all_labels or further or config.data.static_share else 1
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(clips, num_labels, side, side, dtype=torch.uint8)
    for i in range(config.data.max_objects):
        labels[..., i * side // config.data.max_objects :, : side // 2] = i + 1
    batch = {
        "frames": torch.randint(0, 256, (clips, n, 3, side, side), dtype=torch.uint8, generator=generator),
        "labels": labels,
        "label": labels[:, 0],
        "num_objects": torch.full((clips,), config.data.max_objects),
        "weight": torch.ones(clips),
        "position": torch.zeros(clips, dtype=torch.long),
    }
    return {name: value.to(device) for name, value in batch.items()}
