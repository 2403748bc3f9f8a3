"""The configuration of an experiment: its settings, how they are overridden, their digest, and where they come from."""

from __future__ import annotations

from ovos_ray.config.overrides import flatten, from_dict, override, to_dict
from ovos_ray.config.settings import (
    INITS,
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    PretrainConfig,
    SegmentConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = [
    "INITS",
    "AugmentationConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "LossConfig",
    "MethodConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "SegmentConfig",
    "TrainConfig",
    "ValidationConfig",
    "flatten",
    "from_dict",
    "override",
    "to_dict",
]
