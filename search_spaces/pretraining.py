"""Does pretraining on static images matter? Table 3: with and without, all 2-step backward.

The pretrained half starts from `trainables.static_pretraining`, which runs once for all seeds.
"""

from __future__ import annotations

from ovos_ray.config import PretrainConfig
from ovos_ray.study.space import SearchSpace

_STATIC = "trainables.static_pretraining"


def pretraining() -> SearchSpace:
    """Tiny networks on a laptop: 4 configurations, 3 seeds, 600 steps each, best J&F wins."""
    tiny = ("stcn-tiny", "xmem-tiny")
    return SearchSpace(
        name="pretraining",
        trainable="trainables.one_shot",
        axes={
            "network.name pretrain": (
                *((name, PretrainConfig(recipe=_STATIC)) for name in tiny),
                *((name, None) for name in tiny),
            )
        },
        overrides={"method.backward": "2-step"},
        table="Table 3, with tiny networks",
    )


def paper() -> SearchSpace:
    """The published networks, DAVIS 2017 val: the 6 rows of Table 3, 3 seeds, 110,000 to 150,000 steps each."""
    networks = ("stcn", "xmem", "cutie")
    return SearchSpace(
        name="pretraining_paper",
        trainable="trainables.one_shot.xmem",
        axes={
            "trainable pretrain": (
                *((f"trainables.one_shot.{name}", PretrainConfig(recipe=f"{_STATIC}.{name}")) for name in networks),
                *((f"trainables.one_shot.{name}", None) for name in networks),
            )
        },
        overrides={"method.backward": "2-step", "evaluation.root": "DAVIS/2017"},
        table="Table 3",
    )
