"""Stage 0: clips synthesised from single labelled images, fully supervised, one object.

The published code trains a network without the input for other objects' masks and adds it afterwards; here that input
is there and constantly zero. Pack the six sets one by one (`ovos-ray pack static_images --split fss --out shards/fss`),
so that BIG and HRSOD are visited five times as often, as published; for other sets, set data.multipliers too.
"""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig, override
from trainables import augmentation, one_shot

_STATIC = {
    "data.shards": tuple(
        f"shards/{name}" for name in ("fss", "DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small")
    ),
    "data.multipliers": (("BIG_small", 5), ("HRSOD_small", 5)),
    "data.frame_intervals": (),
    "data.frame_sampling": "uniform_gaps",
    "data.label_side": "both",
    "data.source": "static",
    "data.augmentation": augmentation.STATIC,
    "data.clip_length": 3,
    "data.max_objects": 1,
    "data.crop_size": 384,
    "data.batch_size": 16,
    "method.name": "supervised",
    "method.shared_intermediate": True,
    "method.rollout_memory": "training",
    "pretrain": None,
    "note": "stage 0 of the pretrained rows",
}


def stcn() -> ExperimentConfig:
    """STCN: 300,000 steps."""
    changes = {"name": "static-stcn", "train.steps": 300_000, "optimizer.decay_steps": (150_000,)}
    return override(one_shot.stcn(), {**_STATIC, **changes})


def xmem() -> ExperimentConfig:
    """XMem: 150,000 steps, constant learning rate."""
    changes = {"name": "static-xmem", "train.steps": 150_000, "optimizer.decay_steps": ()}
    return override(one_shot.xmem(), {**_STATIC, **changes})


def cutie() -> ExperimentConfig:
    """Cutie: 80,000 steps in float32, constant learning rate, 8192 points."""
    changes = {
        "name": "static-cutie",
        "data.augmentation": augmentation.CUTIE_STATIC,
        "train.steps": 80_000,
        "train.precision": "float32",
        "optimizer.epsilon": 1e-8,
        "optimizer.decay_steps": (),
        "method.loss.num_points": 8192,
    }
    return override(one_shot.cutie(), {**_STATIC, **changes})


def static_pretraining() -> ExperimentConfig:
    """A tiny XMem on two CPU cores."""
    tiny = one_shot.one_shot()
    changes = {"name": "static-tiny", "data.shards": ("shards/static_images",), "data.multipliers": ()}
    sizes = {"data.batch_size": tiny.data.batch_size, "data.crop_size": tiny.data.crop_size}
    return override(tiny, {**_STATIC, **changes, **sizes})
