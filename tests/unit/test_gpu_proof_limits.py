"""What the proof on a GPU says of itself: its time, what it counts, and what it keeps of a run that is cut off."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from gpu_profile import count_waits
from gpu_proof import FULL, LIMITS, TINY
from gpu_runs import attempt, meanwhile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["gpu_proof.py", "README.md"])
def test_the_documented_time_is_that_of_the_limits(name: str) -> None:
    text = (BENCHMARKS / name).read_text(encoding="utf-8")
    (minutes,) = set(re.findall(r"at most (\d+) minutes", text))
    assert 60 * int(minutes) - 60 < sum(LIMITS.values()) < 60 * int(minutes)


def test_the_small_proof_has_the_sizes_of_the_whole() -> None:
    assert TINY.keys() == FULL.keys()


def test_the_notice_of_the_mode_is_no_wait() -> None:
    notice = (
        "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations "
        "(Triggered internally at /pytorch/torch/csrc/cuda/Module.cpp:1089.)"
    )
    waited = "called a synchronizing CUDA operation (Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:296.)"
    assert count_waits([notice]) == 0
    assert count_waits([waited, notice, waited, "something else"]) == 2


def test_what_is_known_is_told_while_a_run_goes_on_and_when_it_fails() -> None:
    told: list[dict[str, Any]] = []
    with pytest.raises(KeyError), meanwhile(lambda: told.append({})):
        raise KeyError
    assert len(told) == 1

    def fail() -> dict[str, Any]:
        raise ValueError("why")

    assert attempt(fail) == {"failed": "ValueError: why"}
