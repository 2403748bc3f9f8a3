"""What the proof on a GPU says of itself: its time, what it counts, and what it keeps of a run that is cut off."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import subprocess
import tarfile
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


def test_parts_are_joined_where_they_are_whole_and_refused_where_one_is_not(tmp_path: Path) -> None:
    """What `benchmarks/offline.sh pack` makes of packages, here of one that is not Ray."""
    core, parts = tmp_path / "packed" / "ray" / "core" / "src" / "ray", tmp_path / "parts"
    core.mkdir(parents=True)
    (core / "raylet").write_bytes(random.Random(0).randbytes(100_000))
    (tmp_path / "packed" / "ray-1.dist-info").mkdir()
    parts.mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as tar:
        tar.add(tmp_path / "packed", ".")
    content, sums = archive.getvalue(), []
    for number, start in enumerate(range(0, len(content), 40_000)):
        part = parts / f"site.tar.xz.{number:02}"
        part.write_bytes(content[start : start + 40_000])
        sums.append(f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n")
    assert len(sums) == 3
    (parts / "SHA256SUMS").write_text("".join(sums))

    def join(site: Path) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(BENCHMARKS / "offline.sh"), "join", str(parts), str(site)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    joined = join(tmp_path / "site")
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout.endswith(": 1 packages\n")
    raylet = tmp_path / "site" / "ray" / "core" / "src" / "ray" / "raylet"
    assert raylet.read_bytes() == (core / "raylet").read_bytes()
    assert os.access(raylet, os.X_OK)
    damaged = bytearray(part.read_bytes())
    damaged[100] ^= 1
    part.write_bytes(damaged)
    refused = join(tmp_path / "other")
    assert refused.returncode != 0
    assert part.name in refused.stdout + refused.stderr
    assert not (tmp_path / "other").exists()
