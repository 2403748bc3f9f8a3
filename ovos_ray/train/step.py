"""One optimiser step: encode, roll forward, walk back, compare, update. No Ray, no tracking, no files."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.data.clips.curricula import is_static_step
from ovos_ray.methods import LOSSES
from ovos_ray.methods.numerics import Numerics
from ovos_ray.methods.schedules import learning_rate_at
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.networks.graphs import Graphs, send
from ovos_ray.seeding import generator
from ovos_ray.train.optimizer import set_learning_rate, update
from ovos_ray.train.skipped import SkippedSteps

__all__ = ["TrainingModule", "distributed", "numerics_of", "train_step"]


class TrainingModule(nn.Module):
    """A network and its method as one module from batch to loss, so that `DistributedDataParallel` can wrap it.

    Attributes:
        skipped: Steps without an update because loss or gradient was not finite.
        graphs: The roll-outs that were captured.
    """

    def __init__(self, network: VOSNetwork, config: ExperimentConfig) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.skipped = SkippedSteps(config.train.max_nonfinite_steps)
        self.graphs = Graphs()
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
            return self._loss(config.method.name, batch, step, self.graphs)
        loss, scalars = self._loss("supervised", batch, step, self.graphs)
        compared = 1 if config.method.name == "one_shot" else config.data.clip_length - 1
        scale = compared / (config.data.clip_length - 1)
        losses = {name for name in scalars if name != "iou"}
        return scale * loss, {
            f"static_{name}": value * scale if name in losses else value for name, value in scalars.items()
        }

    def _loss(
        self, method: str, batch: Mapping[str, Tensor], step: int, graphs: Graphs | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        return LOSSES[method](
            self.network,
            batch,
            config.method,
            generator(config.seed, step, "step"),
            step=step,
            max_objects=config.data.max_objects,
            numerics=numerics_of(config.train, batch["frames"].device, graphs),
        )

    @property
    def rollout(self) -> str:
        """How roll-outs were computed so far: as graphs, or kernel by kernel, and if not as asked for, why."""
        done = "graph" if self.graphs.captures else "eager"
        return f"{done}: {self.graphs.failed}" if self.graphs.failed else done

    @functools.cached_property
    def has_unused(self) -> bool:
        """Whether a step leaves parameters without gradient, as 1-step on a recurrent network does.

        Found by a step on one small black clip, since it depends on network, strategy and loss, and on no size; parts
        that are to be compiled are not, for a size that never comes again.
        """
        device, clip_length = next(self.network.parameters()).device, self.config.data.clip_length
        side = 2 * self.network.stride
        labels = torch.ones(1, clip_length, side, side, dtype=torch.uint8, device=device)
        ones = torch.ones(1, dtype=torch.long, device=device)
        frames = torch.zeros(1, clip_length, 3, side, side, dtype=torch.uint8, device=device)
        batch = {"frames": frames, "labels": labels, "label": labels[:, 0], "num_objects": ones, "weight": ones}
        # Static steps go through all of a network, the run's own need not.
        with torch.compiler.set_stance("force_eager"):
            loss, _ = self._loss(self.config.method.name, batch | {"position": ones}, 0, None)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return any(gradient is None for gradient in gradients)


def distributed(module: TrainingModule) -> DistributedDataParallel:
    """Wraps a module for a process group that is there already: one device a process.

    Not with `static_graph`: it wants every step to use the same parameters equally often, which static steps and deep
    updates of a state do not. Nor would it save anything but the search for unused parameters, which `has_unused`
    already does once for all.
    """
    wrapped = DistributedDataParallel(
        module,
        # Given `device_ids` it would send to the device what the host has to know.
        find_unused_parameters=module.has_unused,
        broadcast_buffers=False,  # they never change
        gradient_as_bucket_view=True,
    )
    if module.config.train.gradient_exchange == "bfloat16":
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        wrapped.register_comm_hook(None, default_hooks.bf16_compress_hook)
    return wrapped


def train_step(
    module: nn.Module,
    batch: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    config: ExperimentConfig,
    step: int,
    *,
    wait: bool = True,
) -> dict[str, Tensor | float]:
    """Makes one optimiser step, or none where loss or gradient is not finite or no sample has weight, then on no rank.

    Args:
        module: A `TrainingModule`, or the same wrapped by `DistributedDataParallel`.
        batch: This rank's part of the global batch, on the device; see `copies.on_device`.
        optimizer: Made by `build_optimizer`.
        config: The whole configuration.
        step: Number of the step, from 0.
        wait: Whether to wait for what became of the step. Else nothing waits for the device, and the caller reads
            `TrainingModule.skipped` when it reads scalars, and before it keeps weights.

    Returns:
        Scalars to log; those of the loss are of this rank's part and stay on the device. `empty_samples` is the share
        of this part in [0, 1] that shows no object, and so has no part in the loss. `skipped_steps` is 1 where loss or
        gradient was not finite.

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
    finite, seen = _agreed(torch.isfinite(loss.detach()) & torch.isfinite(norm), batch["weight"] > 0)
    update(optimizer, finite & seen)
    training = next(part for part in module.modules() if isinstance(part, TrainingModule))
    static = is_static_step(config.data.static_share, config.seed, step, config.train.steps)
    training.skipped.add(step, batch["position"].tolist(), ~finite)
    if wait:
        training.skipped.read()
    return {
        **scalars,
        **({"static_steps": float(static)} if config.data.static_share else {}),
        "empty_samples": (batch["weight"] == 0).float().mean(),
        "static_gradient_norm" if static else "gradient_norm": norm,
        "learning_rate": learning_rate,
        "skipped_steps": (~finite).float(),
    }


def numerics_of(train: TrainConfig, device: torch.device, graphs: Graphs | None = None) -> Numerics:
    """Returns how a step is computed on a device: in bfloat16 where asked for, or by default on GPUs with it.

    Args:
        train: The settings.
        device: Where it is computed.
        graphs: Where the roll-out is captured, if it is to be a graph.
    """
    lower = train.precision == "bfloat16" or (
        train.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    autocast = torch.bfloat16 if lower else None
    rollout = torch.bfloat16 if train.rollout_precision == "bfloat16" else autocast
    as_graph = train.rollout == "graph" or (train.rollout == "auto" and device.type == "cuda")
    return Numerics(
        autocast=autocast, rollout=rollout, recompute=train.gradient_checkpointing, graphs=graphs if as_graph else None
    )


def _share(batch: Mapping[str, Tensor], batch_size: int) -> float:
    """Size of this rank's part, relative to the mean part: `DistributedDataParallel` takes the mean over ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1.0
    return len(batch["weight"]) * torch.distributed.get_world_size() / batch_size


def _agreed(finite: Tensor, has_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whether all ranks have a finite loss and gradient, and any has a sample; they must agree whether to update."""
    weightless = send(~has_weight.any(), finite.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        votes = torch.stack([finite, weightless]).to(torch.int32)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MIN)
        finite, weightless = votes.bool().unbind()
    return finite, ~weightless
