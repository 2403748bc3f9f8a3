"""The fully supervised counterparts: the 100 % rows of Tables 1 and 2.

Each is its one-shot sibling with all labels and a loss on every frame after the first. `stcn`, `xmem` and `cutie`
sample clips as published: each by its own rule, from any frame, half of them backwards, with D changing where it does
there. The functions ending in `_matched` see exactly the clips of the one-shot runs, so that only the supervision
differs. They need shards packed with `--labels all`.
"""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig, override
from trainables import one_shot

_PUBLISHED = {"data.clip_start": "any", "data.time_reversal": 0.5}


def fully_supervised() -> ExperimentConfig:
    """A tiny XMem on two CPU cores, on the clips of `trainables.one_shot`."""
    return _supervised(one_shot.one_shot(), "supervised-tiny")


def with_static_clips() -> ExperimentConfig:
    """The same with a first quarter of such clips as in `trainables.one_shot.with_static_clips`: its yardstick."""
    warm_up = {**one_shot.STATIC_CLIPS, "data.static_share": ((0.0, 1.0), (0.25, 0.0))}
    return override(fully_supervised(), {"name": "supervised-static-clips-tiny", **warm_up})


def stcn() -> ExperimentConfig:
    """STCN, clips as published."""
    changes = {
        "data.frame_sampling": "stcn",
        "data.max_skip": ((0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (0.9, 5)),
    }
    return override(_supervised(one_shot.stcn(), "supervised-stcn"), {**_PUBLISHED, **changes})


def xmem() -> ExperimentConfig:
    """XMem, clips as published; D follows fractions of the first 100,000 of 110,000 steps."""
    max_skip = tuple((fraction * 100_000 / 110_000, d) for fraction, d in one_shot.xmem().data.max_skip)
    return override(_supervised(one_shot.xmem(), "supervised-xmem"), {**_PUBLISHED, "data.max_skip": max_skip})


def cutie() -> ExperimentConfig:
    """Cutie, clips as published: half of those with fewer than 3 objects get another clip's pasted in.

    An epoch differs: the published one has a clip of every frame of a video, ours one of every video, from a random
    frame, with DAVIS as often in all. Long videos therefore count for as much as short ones here, and for more there.
    """
    return override(_supervised(one_shot.cutie(), "supervised-cutie"), {**_PUBLISHED, "data.clip_merging": 0.5})


def stcn_matched() -> ExperimentConfig:
    """STCN on the clips of `trainables.one_shot.stcn`."""
    return _supervised(one_shot.stcn(), "supervised-stcn-matched")


def xmem_matched() -> ExperimentConfig:
    """XMem on the clips of `trainables.one_shot.xmem`."""
    return _supervised(one_shot.xmem(), "supervised-xmem-matched")


def cutie_matched() -> ExperimentConfig:
    """Cutie on the clips of `trainables.one_shot.cutie`."""
    return _supervised(one_shot.cutie(), "supervised-cutie-matched")


def _supervised(config: ExperimentConfig, name: str) -> ExperimentConfig:
    return override(
        config,
        {
            "name": name,
            "method.name": "supervised",
            "method.shared_intermediate": True,
            "method.rollout_memory": "training",
            "data.shards": tuple(f"{path}_all" for path in config.data.shards),
            "note": config.note.replace("1-shot ", ""),
        },
    )
