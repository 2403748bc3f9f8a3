"""Ours beside the published tables."""

from __future__ import annotations

import statistics

import pytest
from synthetic_study import memory_run

from ovos_ray.track.comparison import compare
from ovos_ray.track.paper import paper_tables
from ovos_ray.track.study import Study

DAVIS_2017_VAL = (
    "bike-packing blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog dogs-jump "
    "drift-chicane drift-straight goat gold-fish horsejump-high india judo kite-surf lab-coat libby loading "
    "mbike-trick motocross-jump paragliding-launch parkour pigs scooter-black shooting soapbox"
)


def test_difference_to_the_paper_is_given_only_for_the_same_network_dataset_and_split() -> None:
    full = {(name, 1): (80.0, 86.0) for name in DAVIS_2017_VAL.split()}
    params = {
        "method.name": "one_shot",
        "network.name": "xmem",
        "evaluation.protocol": "davis2017",
        "evaluation.root": "/data/DAVIS",
        "evaluation.split": "val",
    }

    def table_4(scores: dict[tuple[str, int], tuple[float, float]], **changes: str) -> tuple[float | None, str]:
        runs = tuple(
            memory_run(s, 0, scores, params={**params, "method.backward": s, **changes}) for s in ("2-step", "T-step")
        )
        table = paper_tables(compare(Study("s", "1", "uri", runs)))[3]
        line = next(line for line in table.lines if line.section == "2-step backward" and line.method == "1-shot XMem")
        assert line.values == (82.7, 79.4, 86.1)
        return line.ours[0].differences[0], line.ours[0].reason

    difference, reason = table_4(full)
    assert difference == pytest.approx(83.0 - 82.7)
    assert reason == ""
    fewer = dict(list(full.items())[:29])
    assert table_4(fewer) == (None, "not comparable: scored on DAVIS val (29 sequences)")
    small = table_4(full, **{"network.name": "xmem-tiny"})
    assert small == (None, "not comparable: xmem-tiny is not the paper's network")
    other = table_4(full, **{"evaluation.protocol": "davis2016"})
    assert other[0] is None


def test_published_rows_agree_with_themselves() -> None:
    tables = paper_tables(compare(Study("s", "1", "uri", ())))
    # J&F is the mean of J and F, G that of its four; the published numbers are rounded, and a few are off by more.
    off = []
    for table in tables:
        width = len(table.groups[0][1])
        for line in table.lines:
            for start in range(0, len(line.values), width):
                head, *parts = line.values[start : start + width]
                if head is not None and None not in parts and abs(head - statistics.fmean(map(float, parts))) > 0.11:  # type: ignore[arg-type]
                    off.append((table.number, line.method))
    assert len(off) <= 4, off
    stcn = next(line for line in tables[1].lines if line.method.startswith("1-shot STCN"))
    assert stcn.values[:5] == (79.3, 77.6, 81.4, 74.8, 83.4)
    assert "J_S, J_U, F_S, F_U" in tables[1].notes[0]
