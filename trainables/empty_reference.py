"""Training from an empty reference mask: the observation behind one-shot training (section 4.4, Figure 6)."""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig, override
from trainables import one_shot


def empty_reference() -> ExperimentConfig:
    """A tiny XMem on two CPU cores; all objects of a clip are merged into one."""
    changes = {
        "name": "empty-reference-tiny",
        "method.reference": "empty",
        "method.empty_objects": "merge",
        "train.snapshot_every": 100,
    }
    return override(one_shot.one_shot(), changes)


def cutie() -> ExperimentConfig:
    """Cutie for 15,000 steps from ImageNet weights, with the masks of Figure 6 every 3,000 steps."""
    return override(
        one_shot.cutie(),
        {
            "name": "empty-reference-cutie",
            "method.reference": "empty",
            "method.empty_objects": "merge",  # drawn one by one, a network learns masks with holes where others are
            "method.backward": "2-step",
            "pretrain": None,
            "train.steps": 15_000,
            "train.snapshot_every": 3_000,
            "train.snapshot_videos": ("motocross-jump", "drift-chicane"),
            "evaluation.root": "DAVIS/2017",
            "optimizer.decay_steps": (),
            "note": "Figure 6",
        },
    )
