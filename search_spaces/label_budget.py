"""How many labels does my data need? One-shot training from one, two and four labels a video, and from all."""

from __future__ import annotations

from ovos_ray.study.space import SearchSpace


def label_budget() -> SearchSpace:
    """J&F against labels a video, on the synthetic videos that `benchmarks/paper_claims.py` makes.

        for n in 1 2 4 all; do ovos-ray pack davis2017 --root study/dataset --labels $n --out study/shards/$n; done
        ovos-ray sweep search_spaces.label_budget

    Clips start at any of a video's labels, and the loss is the mean over all labels that their walks back pass. No run
    is validated: the labels for that would count, and be most of a small budget.
    """
    return SearchSpace(
        name="label_budget",
        trainable="trainables.synthetic.with_static_clips",
        axes={
            "network.name": ("stcn-tiny", "xmem-tiny"),
            "data.shards": tuple((f"study/shards/{labels}",) for labels in ("1", "2", "4", "all")),
        },
        overrides={"data.clip_start": "labels", "method.further_labels": "compare", "validation.root": None},
    )
