"""One optimiser step: encode, roll forward, walk back, compare, update. No Ray, no tracking, no files."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor, nn

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.data.clips.plan import is_static_step
from ovos_ray.errors import DivergedError
from ovos_ray.methods import LOSSES
from ovos_ray.methods.numerics import Numerics
from ovos_ray.methods.schedules import learning_rate_at
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.seeding import generator
from ovos_ray.train.optimizer import set_learning_rate

__all__ = ["TrainingModule", "numerics_of", "train_step"]

_log = logging.getLogger(__name__)


class TrainingModule(nn.Module):
    """A network and its method as one module from batch to loss, so that `DistributedDataParallel` can wrap it.

    Args:
        network: On its device.
        config: The whole configuration.

    Attributes:
        skipped_steps: Consecutive steps without an update because loss or gradient was not finite.
    """

    def __init__(self, network: VOSNetwork, config: ExperimentConfig) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.skipped_steps = 0
        if config.train.channels_last:
            network.to(memory_format=torch.channels_last)
        if config.train.compile:
            # Part by part: the methods of the protocol would be compiled anew for every length of the list of
            # auxiliary outputs and every combination of updates.
            for part in network.children():
                part.compile()

    def forward(self, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns loss and scalars of a batch; every random draw follows from the seed and the step.

        On a static step (`data.static_share`) the scalars are called `static_…`, and the loss is that of a frame, times
        the frames that the run's own method compares with a label.
        """
        config = self.config
        if not is_static_step(config.data.static_share, config.seed, step, config.train.steps):
            return self._loss(config.method.name, batch, step)
        loss, scalars = self._loss("supervised", batch, step)
        compared = 1 if config.method.name == "one_shot" else config.data.clip_length - 1
        scale = compared / (config.data.clip_length - 1)
        losses = {name for name in scalars if name != "iou"}
        return scale * loss, {
            f"static_{name}": value * scale if name in losses else value for name, value in scalars.items()
        }

    def _loss(self, method: str, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        return LOSSES[method](
            self.network,
            batch,
            config.method,
            generator(config.seed, step, "step"),
            step=step,
            max_objects=config.data.max_objects,
            numerics=numerics_of(config.train, batch["frames"].device),
        )

    @functools.cached_property
    def has_unused(self) -> bool:
        """Whether a step leaves parameters without gradient, as 1-step on a recurrent network does.

        Found by a step on one small black clip, since it depends on network, strategy and loss.
        """
        device, clip_length = next(self.network.parameters()).device, self.config.data.clip_length
        side = 2 * self.network.stride
        labels = torch.ones(1, clip_length, side, side, dtype=torch.uint8, device=device)
        ones = torch.ones(1, dtype=torch.long, device=device)
        frames = torch.zeros(1, clip_length, 3, side, side, dtype=torch.uint8, device=device)
        batch = {"frames": frames, "labels": labels, "label": labels[:, 0], "num_objects": ones, "weight": ones}
        # Static steps go through all of a network, the run's own need not.
        loss, _ = self._loss(self.config.method.name, batch | {"position": ones}, 0)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return any(gradient is None for gradient in gradients)


def train_step(
    module: nn.Module,
    batch: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    config: ExperimentConfig,
    step: int,
) -> dict[str, Tensor | float]:
    """Makes one optimiser step, or none where loss or gradient is not finite, then on no rank.

    Args:
        module: A `TrainingModule`, or the same wrapped by `DistributedDataParallel`.
        batch: This rank's part of the global batch, on the device.
        optimizer: Made by `build_optimizer`.
        config: The whole configuration.
        step: Number of the step, from 0.

    Returns:
        Scalars to log; those of the loss are of this rank's part and stay on the device. `empty_samples` is the share
        of this part in [0, 1] that shows no object, and so has no part in the loss.

    Raises:
        DivergedError: Too many steps in a row were not finite.
    """
    learning_rate = learning_rate_at(step, config.optimizer)
    set_learning_rate(optimizer, learning_rate)
    module.train()
    loss, scalars = module(batch, step)
    optimizer.zero_grad(set_to_none=True)
    (loss * _share(batch, config.data.batch_size)).backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), config.optimizer.clip_norm or float("inf"))
    finite = _finite_everywhere(loss.detach(), norm)
    if finite:
        optimizer.step()
    _count_skipped(module, batch, config.train, step, finite)
    static = is_static_step(config.data.static_share, config.seed, step, config.train.steps)
    return {
        **scalars,
        **({"static_steps": float(static)} if config.data.static_share else {}),
        "empty_samples": (batch["weight"] == 0).float().mean(),
        "static_gradient_norm" if static else "gradient_norm": norm,
        "learning_rate": learning_rate,
        "skipped_steps": float(not finite),
    }


def numerics_of(train: TrainConfig, device: torch.device) -> Numerics:
    """Returns precision and memory of a step on a device: bfloat16 where asked for, or by default on GPUs with it."""
    lower = train.precision == "bfloat16" or (
        train.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    autocast = torch.bfloat16 if lower else None
    rollout = torch.bfloat16 if train.rollout_precision == "bfloat16" else autocast
    return Numerics(autocast=autocast, rollout=rollout, recompute=train.gradient_checkpointing)


def _share(batch: Mapping[str, Tensor], batch_size: int) -> float:
    """Size of this rank's part, relative to the mean part: `DistributedDataParallel` takes the mean over ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1.0
    return len(batch["weight"]) * torch.distributed.get_world_size() / batch_size


def _finite_everywhere(loss: Tensor, norm: Tensor) -> bool:
    """Whether all ranks have a finite loss and gradient; they must agree whether to update."""
    finite = torch.isfinite(loss) & torch.isfinite(norm)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        flag = finite.to(torch.int32)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        return bool(flag)
    return bool(finite)


def _count_skipped(module: nn.Module, batch: Mapping[str, Tensor], train: TrainConfig, step: int, finite: bool) -> None:
    training = next(part for part in module.modules() if isinstance(part, TrainingModule))
    training.skipped_steps = 0 if finite else training.skipped_steps + 1
    if finite:
        return
    positions = batch["position"].tolist()
    _log.warning("step %d skipped: loss or gradient not finite, at positions %s", step, positions)
    if training.skipped_steps >= train.max_nonfinite_steps:
        raise DivergedError(
            f"loss or gradient was not finite in {training.skipped_steps} steps in a row, the last one step {step} "
            f"with positions {positions}",
            "lower optimizer.learning_rate, set optimizer.clip_norm, or train.precision=float32",
        )
