"""A little real video on two CPU cores: does one label per video teach a network anything? docs/reproducing.md.

`davis2016` is the whole of it, with what goes beyond the paper beside the plain method: docs/beyond.md.
"""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace

_FIRST, _ALL = ("shards/davis-mini",), ("shards/davis-mini-all",)
_SMALL = {
    "data.max_objects": 1,
    "train.steps": 400,
    "optimizer.decay_steps": (320,),
    "optimizer.clip_norm": 1.0,
    "evaluation.protocol": "davis2016",
    "evaluation.shortest_side": 144,
}


def real_video() -> SearchSpace:
    """Tiny networks on sixteen DAVIS sequences, one label each; beside them one trained on all labels."""
    return SearchSpace(
        name="real_video",
        trainable="trainables.one_shot",
        axes={
            "network.name method.name method.backward data.shards": (
                ("stcn-tiny", "one_shot", "2-step", _FIRST),
                ("xmem-tiny", "one_shot", "2-step", _FIRST),
                ("xmem-tiny", "one_shot", "T-step", _FIRST),
                ("xmem-tiny", "supervised", "T-step", _ALL),
            )
        },
        seeds=(0, 1),
        overrides={**_SMALL, "evaluation.root": "davis-mini"},
        table="Tables 1 and 4, with tiny networks on sixteen sequences",
    )


def davis2016() -> SearchSpace:
    """One label of each training sequence of DAVIS 2016, with and without static clips; beside it all labels."""
    first, every = ("shards/davis2016-first",), ("shards/davis2016-all",)
    return SearchSpace(
        name="davis2016",
        trainable="trainables.one_shot",
        axes={
            "network.name": ("xmem-tiny", "stcn-tiny"),
            "trainable data.shards": (
                ("trainables.one_shot", first),
                ("trainables.one_shot.with_static_clips", first),
                ("trainables.one_shot.static_only", first),
                ("trainables.one_shot.layers_only", first),
                ("trainables.one_shot.pasted_only", first),
                ("trainables.fully_supervised", every),
                ("trainables.fully_supervised.with_static_clips", every),
            ),
        },
        seeds=(0, 1, 2, 3, 4),
        overrides={**_SMALL, "evaluation.root": "davis2016"},
        table="Table 1, with tiny networks, one label a video against all",
    )
