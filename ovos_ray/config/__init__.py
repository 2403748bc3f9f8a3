"""The configuration of an experiment: its settings, how they are overridden, their digest, and where they come from."""

from __future__ import annotations

from ovos_ray.config.data_settings import AugmentationConfig, DataConfig
from ovos_ray.config.method_settings import INITS, LossConfig, MethodConfig, NetworkConfig, OptimizerConfig
from ovos_ray.config.overrides import flatten, from_dict, override, to_dict
from ovos_ray.config.run_settings import (
    EvaluationConfig,
    PretrainConfig,
    ScoredSplit,
    SegmentConfig,
    TrainConfig,
    ValidationConfig,
)
from ovos_ray.config.settings import ExperimentConfig

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
    "ScoredSplit",
    "SegmentConfig",
    "TrainConfig",
    "ValidationConfig",
    "flatten",
    "from_dict",
    "override",
    "to_dict",
]
