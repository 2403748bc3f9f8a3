"""Do the paper's claims hold on a scale that two CPU cores bear? Run and answered by `benchmarks/paper_claims.py`."""

from __future__ import annotations

import dataclasses

from ovos_ray.study.space import SearchSpace

_FIRST, _ALL = ("study/shards/first",), ("study/shards/all",)


def paper_claims() -> SearchSpace:
    """Supervised, 2-, T- and 1-step, and an empty reference: tiny XMem and STCN, equal steps, three seeds."""
    return SearchSpace(
        name="paper_claims",
        trainable="trainables.synthetic",
        axes={
            "network.name method.name method.backward method.reference method.empty_objects data.shards": (
                ("xmem-tiny", "supervised", "T-step", "predicted", "draw", _ALL),
                ("xmem-tiny", "one_shot", "2-step", "predicted", "draw", _FIRST),
                ("xmem-tiny", "one_shot", "T-step", "predicted", "draw", _FIRST),
                ("xmem-tiny", "one_shot", "2-step", "empty", "merge", _FIRST),
                ("stcn-tiny", "supervised", "T-step", "predicted", "draw", _ALL),
                ("stcn-tiny", "one_shot", "2-step", "predicted", "draw", _FIRST),
                ("stcn-tiny", "one_shot", "1-step", "predicted", "draw", _FIRST),
            )
        },
        table="Tables 1 and 4 and Figures 6 and 7, with tiny networks on synthetic videos",
    )


def longer() -> SearchSpace:
    """The same without 1-step and empty references, in three times the steps: does one-shot training catch up?"""
    study = paper_claims()
    ((keys, rows),) = study.axes.items()
    kept = [row for row in rows if row[2] != "1-step" and row[3] != "empty"]
    return dataclasses.replace(
        study,
        name="paper_claims_longer",
        axes={keys: kept},
        overrides={"train.steps": 1200, "optimizer.decay_steps": (960,), "validation.every": 200},
    )
