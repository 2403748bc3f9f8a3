"""One experiment is one tree of frozen dataclasses; it is printed in full, digested and stored with every result.

A recipe (`trainables/*.py`) is a function that returns an `ExperimentConfig`. On the command line any leaf is
overridden by its dotted key, `method.backward=T-step`; search spaces use the same keys. Nothing here imports torch
or Ray. What else depends on a setting stands in its annotation (`roles.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ovos_ray.config.data_settings import DataConfig
from ovos_ray.config.method_settings import MethodConfig, NetworkConfig, OptimizerConfig
from ovos_ray.config.roles import Added, Bookkeeping, Computes, Identifies, Inherited, Role, Trait, settings_of
from ovos_ray.config.run_settings import EvaluationConfig, PretrainConfig, SegmentConfig, TrainConfig, ValidationConfig

__all__ = ["ExperimentConfig", "keys_of"]


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides what one run computes."""

    name: Annotated[str, Bookkeeping] = "one-shot"
    """Of the run, and of its folder in `storage`: the same name there resumes it."""
    seed: Annotated[int, Identifies] = 0
    """Of everything random: initial weights, the order of clips, their augmentation, the frames walked back."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """What is trained."""
    data: DataConfig = field(default_factory=DataConfig)
    """On what."""
    method: MethodConfig = field(default_factory=MethodConfig)
    """By which loss."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """With which steps."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How long, and on what machines."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What is scored while it trains."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is scored in the end."""
    pretrain: Annotated[PretrainConfig | None, Computes] = None
    """The stage before; None: the run starts from `network.init`."""
    segment: Annotated[SegmentConfig | None, Identifies, Added(before=None)] = None
    """None: the run is whole."""
    storage: Annotated[str, Bookkeeping] = "runs"
    """Folder or bucket URI for checkpoints and results."""
    tracking_uri: Annotated[str, Bookkeeping, Inherited] = "sqlite:///mlflow.db"
    """MLflow tracking store; empty string: no tracking."""
    note: Annotated[str, Bookkeeping] = ""
    """Which table rows of the paper the recipe stands for."""

    @property
    def start_step(self) -> int:
        """Optimiser step at which this run begins: 0, but for a segment."""
        return 0 if self.segment is None else self.segment.start_step

    @property
    def stop_step(self) -> int:
        """Optimiser step at which this run ends: `train.steps`, but for a segment."""
        return self.train.steps if self.segment is None else self.segment.stop_step


def keys_of(*marks: type[Role | Trait]) -> frozenset[str]:
    """Returns the dotted keys of the settings with any of these roles and traits."""
    return frozenset(
        key for key, setting in settings_of(ExperimentConfig).items() if any(mark in setting for mark in marks)
    )
