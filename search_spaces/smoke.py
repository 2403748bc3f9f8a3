"""Does everything work? Two trials of a few steps."""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace


def smoke() -> SearchSpace:
    """Two strategies, one seed, 20 steps."""
    return SearchSpace(
        name="smoke",
        trainable="trainables.one_shot",
        axes={"method.backward": ("T-step", "2-step")},
        seeds=(0,),
        overrides={"train.steps": 20, "train.log_every": 5, "train.checkpoint_every": 10},
    )
