"""Which learning rate? Random draws from a logarithmic range, the poor ones stopped early by ASHA.

Trials are compared by the J&F of a selection split during training (`validation.root`), whose labels count in the label
budget; it must not be the split that is reported. One seed: confirm the best draw with three. With `scheduler=pbt` the
draws are the first rates of a population, whose worst members go on from the best (docs/studies.md).
"""

from __future__ import annotations

from ovos_ray.study.space import Range, SearchSpace


def learning_rate() -> SearchSpace:
    """Tiny XMem on a laptop: 12 draws from 1e-4 to 1e-2, at most 600 steps each, best J&F of the selection split."""
    return SearchSpace(
        name="learning_rate",
        trainable="trainables.one_shot",
        ranges={"optimizer.learning_rate": Range(1e-4, 1e-2, log=True)},
        num_samples=12,
        seeds=(0,),
        overrides={"validation.every": 100},
        metric="val/jf",
        scheduler="asha",
        searcher="random",
    )


def paper() -> SearchSpace:
    """XMem: 24 draws from 1e-6 to 1e-4, at most 110,000 steps each, best J&F of the selection split."""
    return SearchSpace(
        name="learning_rate_paper",
        trainable="trainables.one_shot.xmem",
        ranges={"optimizer.learning_rate": Range(1e-6, 1e-4, log=True)},
        num_samples=24,
        seeds=(0,),
        overrides={"pretrain": None, "method.backward": "2-step", "validation.every": 5_000},
        metric="val/jf",
        scheduler="asha",
        searcher="random",
    )
