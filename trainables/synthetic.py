"""Tiny networks on the synthetic videos, minutes long: the settings of the demo and of `search_spaces.paper_claims`.

They were chosen by J&F on the split `select` (docs/demo.md); `val` was not looked at.
"""

from __future__ import annotations

from ovos_ray.config import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    ValidationConfig,
    override,
)
from trainables.one_shot import STATIC_ONLY


def synthetic() -> ExperimentConfig:
    """A tiny XMem on the synthetic videos; `python benchmarks/paper_claims.py` makes them."""
    return ExperimentConfig(
        name="synthetic-tiny",
        network=NetworkConfig(name="xmem-tiny"),
        data=DataConfig(
            shards=("study/shards/first",),
            clip_length=5,
            max_skip=((0.0, 2), (0.3, 4)),
            batch_size=4,
            crop_size=96,
            max_objects=3,
        ),
        method=MethodConfig(backward="2-step", loss=LossConfig(cross_entropy="plain", dice=True)),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, weight_decay=0.01, warm_up_steps=20, decay_steps=(320,), clip_norm=1.0
        ),
        train=TrainConfig(steps=400, num_threads=1, checkpoint_every=100, log_every=25),
        validation=ValidationConfig(root="study/dataset", split="select", every=100, num_videos=4),
        evaluation=EvaluationConfig(root="study/dataset", split="val"),
        storage="study/runs",
        tracking_uri="sqlite:///study/mlflow.db",
    )


def with_static_clips() -> ExperimentConfig:
    """As `one_shot.with_static_clips`, with clips in which objects move on their own, as those of these videos do.

    Walks begin after a quarter, as was chosen for 300 to 400 steps; for 1,200 see docs/beyond.md.
    """
    changes = {"data.static_share": ((0.0, 1.0), (0.25, 0.25)), "data.static_clips": "layers"}
    return override(synthetic(), {"name": "synthetic-static-clips", **changes})


def static_only() -> ExperimentConfig:
    """Nothing but clips synthesised from the labelled frames: what one-shot training has to beat."""
    return override(synthetic(), {"name": "synthetic-static-only", **STATIC_ONLY})


def pasted_only() -> ExperimentConfig:
    """The same with clips in which objects of one labelled frame move over another, as in `one_shot.pasted_only`."""
    return override(static_only(), {"name": "synthetic-pasted-only", "data.static_clips": "pasted"})
