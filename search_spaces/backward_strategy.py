"""Which way back is best? Table 4."""

from __future__ import annotations

from ovos_ray.tune.space import SearchSpace


def backward_strategy() -> SearchSpace:
    """T-, 2- and 1-step backward of tiny networks on a laptop."""
    return SearchSpace(
        name="backward_strategy",
        trainable="trainables.one_shot",
        axes={"network.name": ("stcn-tiny", "xmem-tiny"), "method.backward": ("T-step", "2-step", "1-step")},
        table="Table 4, with tiny networks",
    )
