"""What a run carries from step to step and from launch to launch: all that a checkpoint holds, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.digest import digest
from ovos_ray.config.overrides import to_dict
from ovos_ray.config.stored import SCHEMA
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.run.bad_samples import BadSamples
from ovos_ray.run.initial import initial_network
from ovos_ray.run.resume import resume_state
from ovos_ray.track.provenance import code_versions
from ovos_ray.train.optimizer import build_optimizer, load_moments
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.train.step import TrainingModule

__all__ = ["RunState"]


@dataclass
class RunState:
    """The changing part of a run.

    Attributes:
        config: Of the run.
        module: The network with its method, on its device.
        optimizer: With its moments.
        averaged: The moving average of the weights (`train.ema_decay`), updated by `after_step`; None: there is none.
        bad_samples: Samples that could not be read.
        best: `step` and `val/jf` of the best validation so far, where the best checkpoint is to be chosen.
        validation: The last scores of the validation split, by name, in percent.
        seconds_before: Time that earlier launches took.
        changed_code: What is not as it was when the checkpoint was written: commit and versions; empty if all is.
    """

    config: ExperimentConfig
    module: TrainingModule
    optimizer: torch.optim.Optimizer
    bad_samples: BadSamples
    averaged: AveragedModel | None = None
    best: dict[str, float] | None = None
    validation: dict[str, float] = field(default_factory=dict)
    seconds_before: float = 0.0
    changed_code: str = ""
    _began: float = field(default_factory=time.time)

    @classmethod
    def at(
        cls, config: ExperimentConfig, step: int, device: torch.device, stored: Mapping[str, Any] | None = None
    ) -> RunState:
        """Returns the state after a number of steps: as initialised after none, else from that step's checkpoint.

        `stored` is that checkpoint, where it has been read already.

        Raises:
            WeightsError: Weights to start from cannot be had, or do not fit.
            CheckpointError: There is no such checkpoint, or it is damaged.
        """
        module = TrainingModule(initial_network(config).to(device), config)
        optimizer = build_optimizer(module.network, config.optimizer, device)
        averaged = _average_of(module.network, config.train.ema_decay)
        if not step:
            return cls(config, module, optimizer, BadSamples(config.data), averaged)
        stored = resume_state(config, step) if stored is None else stored
        module.network.load_state_dict(stored["network"])
        load_moments(optimizer, stored["optimizer"])
        bad_samples = BadSamples(config.data, stored.get("bad_samples", ()))
        best, validation = stored.get("best"), stored.get("validation", {})
        changed = _changed(stored.get("versions"))
        if averaged is not None:
            averaged.load_state_dict(stored["averaged"])
        return cls(config, module, optimizer, bad_samples, averaged, best, validation, stored["seconds"], changed)

    def after_step(self) -> None:
        """Takes the weights that a step has left into their average."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    @property
    def network(self) -> VOSNetwork:
        """The network that is trained."""
        return self.module.network

    @property
    def averaged_network(self) -> VOSNetwork | None:
        """The network with the averaged weights, if there are any."""
        return None if self.averaged is None else cast(VOSNetwork, self.averaged.module)

    @property
    def seconds(self) -> float:
        """Time that the run has taken in all its launches."""
        return self.seconds_before + time.time() - self._began

    def content(self, step: int) -> dict[str, Any]:
        """Returns what the checkpoint of a step holds; its tensors are those that training goes on with."""
        config = self.config
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({} if self.averaged is None else {"averaged": self.averaged.state_dict()}),
            "step": step,
            "seed": config.seed,
            "seconds": self.seconds,
            "best": self.best,
            "validation": self.validation,
            "bad_samples": self.bad_samples.as_list(),
            "network_name": config.network.name,
            "schema": SCHEMA,
            "config": to_dict(config),
            "digest": digest(config),
            "versions": code_versions(),
        }

    def load_best(self) -> None:
        """Takes the weights of the best validated step, where that is not the last one."""
        if self.best is not None and self.best["step"] != self.config.stop_step:
            store = RunFolder.of(self.config).checkpoints()
            stored = store.load(int(self.best["step"]))
            self.network.load_state_dict(stored["network"])


class _MovingAverage(AveragedModel):
    """The moving average of weights, updated without waiting for their device.

    PyTorch's own copies its counter there in every step, which waits for all that is queued.
    """

    def update_parameters(self, model: nn.Module) -> None:
        """Takes weights into the average. Buffers never change, and need not be copied."""
        if not self.n_averaged or self.multi_avg_fn is None:  # the counter is the host's
            super().update_parameters(model)
            return
        average: list[Tensor] = list(self.parameters())
        weights: list[Tensor] = list(model.parameters())
        self.multi_avg_fn(average, weights, self.n_averaged)
        self.n_averaged += 1


def _average_of(network: VOSNetwork, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return _MovingAverage(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _changed(before: Mapping[str, str] | None) -> str:
    now = code_versions()
    changed = [name for name in {**(before or {}), **now} if before is not None and before.get(name) != now.get(name)]
    return ", ".join(f"{name} {(before or {}).get(name, '–')} before, {now.get(name, '–')} now" for name in changed)
