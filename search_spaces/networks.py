"""One label per video against all of them, by network. Tables 1 and 2.

`evaluation.also` adds datasets that the same weights are scored on; of YouTube-VOS the masks are kept, for the
benchmark's server (`evaluation.also=` leaves out what you do not have). The fully supervised rows read shards packed
with `--labels all`, which by convention lie beside the one-shot ones: `shards/davis2017` and `shards/davis2017_all`.
"""

from __future__ import annotations

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.study.space import SearchSpace

_ALL = "_all"


def networks() -> SearchSpace:
    """Tiny networks on a laptop: 6 configurations, 3 seeds, 600 steps each, best J&F wins."""
    return SearchSpace(
        name="networks",
        trainable="trainables.one_shot",
        axes={
            "network.name": ("stcn-tiny", "xmem-tiny", "cutie-tiny"),
            "trainable": ("trainables.one_shot", "trainables.fully_supervised"),
        },
        adapt=_read_all_labels,
        table="Tables 1 and 2, with tiny networks",
    )


def paper() -> SearchSpace:
    """The published networks on all benchmarks: 3 one-shot and 3 fully supervised rows, pretrained, 3 seeds."""
    return SearchSpace(
        name="networks_paper",
        trainable="trainables.one_shot.xmem",
        axes={
            "trainable": (
                "trainables.one_shot.stcn",
                "trainables.one_shot.xmem",
                "trainables.one_shot.cutie",
                "trainables.fully_supervised.stcn",
                "trainables.fully_supervised.xmem",
                "trainables.fully_supervised.cutie",
            )
        },
        overrides={
            "evaluation.root": "DAVIS/2017",
            "evaluation.also": (
                "davis2016=DAVIS/2016",
                "youtube2018=YouTube2018:valid",
                "youtube2019=YouTube2019:valid",
            ),
        },
        adapt=_read_all_labels,
        table="Tables 1 and 2",
    )


def _read_all_labels(config: ExperimentConfig) -> ExperimentConfig:
    """Points fully supervised runs to the shards with all labels, also where the command line names the others."""
    if config.method.name != "supervised":
        return config
    shards = tuple(path if path.endswith(_ALL) else f"{path}{_ALL}" for path in config.data.shards)
    return override(config, {"data.shards": shards})
