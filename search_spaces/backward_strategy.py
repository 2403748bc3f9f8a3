"""Which way back is best? Table 4: T-step, 2-step and 1-step backward from scratch.

1-step is left out on recurrent networks, whose sensory update it would leave untrained (section 3.4). With clips of
three frames, as STCN has them, T-step is 2-step and runs once.
"""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace

_STRATEGIES = ("2-step", "T-step", "1-step")


def backward_strategy() -> SearchSpace:
    """Tiny networks on a laptop: 7 configurations, 3 seeds, 600 steps each, best J&F wins."""
    return SearchSpace(
        name="backward_strategy",
        trainable="trainables.one_shot",
        axes={"network.name": ("stcn-tiny", "xmem-tiny", "cutie-tiny"), "method.backward": _STRATEGIES},
        table="Table 4, with tiny networks",
    )


def paper() -> SearchSpace:
    """The published networks, DAVIS 2017 val: the 6 rows of Table 4, 3 seeds, 110,000 to 150,000 steps each."""
    return SearchSpace(
        name="backward_strategy_paper",
        trainable="trainables.one_shot.xmem",
        axes={
            "trainable": ("trainables.one_shot.stcn", "trainables.one_shot.xmem", "trainables.one_shot.cutie"),
            "method.backward": _STRATEGIES,
        },
        overrides={"pretrain": None, "evaluation.root": "DAVIS/2017"},
        table="Table 4",
    )
