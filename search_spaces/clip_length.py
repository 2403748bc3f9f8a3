"""How long should a clip be? The n of section 4.1, 2-step backward from scratch."""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace


def clip_length() -> SearchSpace:
    """Tiny XMem on a laptop: 4 values of n, 3 seeds, 600 steps each, best J&F wins."""
    return SearchSpace(
        name="clip_length",
        trainable="trainables.one_shot",
        axes={"data.clip_length": (3, 4, 5, 6)},
        overrides={"method.backward": "2-step"},
        table="the n of section 4.1, with a tiny network",
    )


def paper() -> SearchSpace:
    """XMem and Cutie, DAVIS 2017 val: 4 values of n up to the published 8, 3 seeds, 110,000 or 125,000 steps each."""
    return SearchSpace(
        name="clip_length_paper",
        trainable="trainables.one_shot.xmem",
        axes={
            "trainable": ("trainables.one_shot.xmem", "trainables.one_shot.cutie"),
            "data.clip_length": (3, 4, 6, 8),
        },
        overrides={"method.backward": "2-step", "pretrain": None, "evaluation.root": "DAVIS/2017"},
        table="the n of section 4.1",
    )
