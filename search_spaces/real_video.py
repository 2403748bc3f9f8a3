"""A little real video on two CPU cores: does one label per video teach a network anything? docs/reproducing.md."""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace

_FIRST, _ALL = ("shards/davis-mini",), ("shards/davis-mini-all",)


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
        overrides={
            "data.max_objects": 1,
            "train.steps": 400,
            "optimizer.decay_steps": (320,),
            "optimizer.clip_norm": 1.0,
            "evaluation.root": "davis-mini",
            "evaluation.protocol": "davis2016",
            "evaluation.shortest_side": 144,
        },
        table="Tables 1 and 4, with tiny networks on sixteen sequences",
    )
