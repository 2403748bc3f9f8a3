"""Fine-tuning: a trained network learns from videos of your own, with one labelled frame each.

    ovos-ray train trainables.fine_tuning.cutie network.init=cutie-base-mega.pth data.shards=shards/my-videos

The file is one of the official releases, or a `network.safetensors` of your own runs; it must be of the network that
the recipe names (`network.name=cutie-small` for the small one). Walking back is T-step, which section 3.4 calls best
from pretrained weights. Learning rate and length are ours, not the paper's: a tenth of the published rate, some 2 % of
the published steps, and the hardest pixels only from the start, as late in published training.
"""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig, override
from trainables import one_shot

_SHORT = {
    "data.shards": (),
    "data.multipliers": (),
    "data.frame_intervals": (),
    "data.label_side": "both",
    "data.max_skip": ((0.0, 5), (0.2, 10)),
    "data.batch_size": 4,
    "optimizer.warm_up_steps": 100,
    "optimizer.decay_steps": (1500,),
    "train.steps": 2000,
    "train.num_workers": 1,
    "train.checkpoint_every": 250,
    "pretrain": None,
    "note": "",
}


def fine_tuning() -> ExperimentConfig:
    """A tiny XMem on two CPU cores, from a run of `trainables.one_shot`."""
    changes = {
        "name": "fine-tuned-tiny",
        "network.init": "runs/one-shot-tiny/network.safetensors",
        "method.backward": "T-step",
        "optimizer.learning_rate": 1e-4,
        "optimizer.decay_steps": (150,),
        "train.steps": 200,
    }
    return override(one_shot.one_shot(), changes)


def stcn() -> ExperimentConfig:
    """STCN from `stcn.pth`, on one GPU."""
    changes = {"name": "fine-tuned-stcn", "network.init": "stcn.pth", "optimizer.learning_rate": 1e-6}
    return override(one_shot.stcn(), {**_SHORT, **changes, **_hard_pixels()})


def xmem() -> ExperimentConfig:
    """XMem from `XMem.pth`, on one GPU."""
    changes = {"name": "fine-tuned-xmem", "network.init": "XMem.pth", "optimizer.learning_rate": 1e-6}
    return override(one_shot.xmem(), {**_SHORT, **changes, **_hard_pixels()})


def cutie() -> ExperimentConfig:
    """Cutie from `cutie-base-mega.pth`, on one GPU."""
    changes = {"name": "fine-tuned-cutie", "network.init": "cutie-base-mega.pth", "optimizer.learning_rate": 1e-5}
    return override(one_shot.cutie(), {**_SHORT, **changes})


def _hard_pixels() -> dict[str, int]:
    return {"method.loss.warm_up_start": 0, "method.loss.warm_up_end": 0}
