"""A study small enough for fault tests: real networks and videos, milliseconds a step, and its outcome without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs import Weights, copy_of_made, train_alone

from ovos_ray.config import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    override,
)


def make_dataset(root: Path) -> Path:
    """Writes four small training videos, packed with one label each, and a held-out one: `dataset`, `shards`."""
    return copy_of_made(root, num_train=4, num_frames=6).parent


def tiny_config(root: Path, *, steps: int, **train: Any) -> ExperimentConfig:
    """A tiny STCN on clips of three small frames; the random draws of strategy and augmentation are all there."""
    return ExperimentConfig(
        network=NetworkConfig(name="stcn-tiny"),
        data=DataConfig(
            shards=(str(root / "shards"),), clip_length=4, max_skip=((0.0, 1),), batch_size=1, crop_size=48
        ),
        method=MethodConfig(loss=LossConfig(cross_entropy="plain")),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(
            steps=steps, cpus_per_worker=0.45, num_threads=1, log_every=5, **{"checkpoint_every": 5, **train}
        ),
        evaluation=EvaluationConfig(root=str(root / "dataset"), split="val"),
        storage=str(root / "runs"),
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
    )


def undisturbed(config: ExperimentConfig, elsewhere: Path) -> Weights:
    """The weights of the same run in this process, without Ray and without a pause."""
    changes = {"storage": str(elsewhere), "tracking_uri": "", "evaluation.root": None}
    return train_alone(override(config, changes))
