"""How far apart should the frames of a clip be? The curricula of D of section 4.1, 2-step backward from scratch."""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace


def skip_schedule() -> SearchSpace:
    """Tiny XMem on a laptop: 4 curricula, 3 seeds, 600 steps each, best J&F wins."""
    return SearchSpace(
        name="skip_schedule",
        trainable="trainables.one_shot",
        axes={
            "data.max_skip": (
                ((0.0, 1),),
                ((0.0, 3),),
                ((0.0, 3), (0.3, 8)),
                ((0.0, 3), (0.3, 8), (0.8, 3)),
            )
        },
        overrides={"method.backward": "2-step"},
        table="the D of section 4.1, with a tiny network",
    )


def paper() -> SearchSpace:
    """XMem, DAVIS 2017 val: constant D, the published curriculum and two variants, 3 seeds, 110,000 steps each."""
    return SearchSpace(
        name="skip_schedule_paper",
        trainable="trainables.one_shot.xmem",
        axes={
            "data.max_skip": (
                ((0.0, 5),),
                ((0.0, 15),),
                ((0.0, 5), (0.1, 10), (0.3, 15)),
                ((0.0, 5), (0.1, 10), (0.3, 15), (0.9, 5)),
                ((0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (0.8, 5)),
            )
        },
        overrides={"method.backward": "2-step", "pretrain": None, "evaluation.root": "DAVIS/2017"},
        table="the D of section 4.1",
    )
