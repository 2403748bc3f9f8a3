"""The proof on a GPU runs through on a CPU, part by part, and keeps what it has measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def prove(out: Path, *arguments: str) -> dict[str, Any]:
    """Runs the script as on a machine where nothing can be fetched, and returns what it wrote."""
    command = [sys.executable, str(ROOT / "benchmarks/gpu_proof.py"), "--out", str(out), "--device", "cpu", "--tiny"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *arguments], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    logs = "".join(path.read_text(encoding="utf-8")[-3000:] for path in out.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    assert "ended with" not in done.stdout, logs
    assert len([path for path in out.iterdir() if path.is_file()]) <= 12
    found: dict[str, Any] = json.loads((out / "gpu_proof.json").read_text(encoding="utf-8"))
    return found


def test_steps_and_inference_are_measured(tmp_path: Path) -> None:
    found = prove(tmp_path, "--parts", "a,d", "--networks", "stcn-tiny")
    variants = found["a"]["stcn-tiny"]
    assert set(variants) == {"two plain passes", "kernel by kernel", "graph"}
    assert variants["two plain passes"]["ratio"] == variants["two plain passes"]["ratio alone"] == 1
    kernels = variants["graph"]["kernels"]
    assert len(kernels) == 20
    assert sum(kernel["seconds"] for kernel in kernels) <= variants["graph"]["kernels s"]
    assert variants["graph"]["first loss"] == pytest.approx(variants["kernel by kernel"]["first loss"], rel=1e-5)
    assert found["a"]["graph against eager, float32"]["stcn-tiny"]["weights"] < 1e-6
    assert set(found["d"]["cutie-small"]) == {"ovos-ray", "rf-cutie"}
    table = (tmp_path / "gpu_proof.md").read_text(encoding="utf-8")
    assert "| stcn-tiny | graph | " in table
    assert f"| stcn-tiny | `{kernels[0]['kernel']}` | " in table
    assert "no figure is of use" in table


def test_what_was_measured_before_its_time_was_over_is_kept(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu_proof.py"), "--out", str(tmp_path), "--device", "cpu"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    names = ("stcn-tiny", *("cutie-base",) * 9)
    done = subprocess.run(
        [*command, "--tiny", "--parts", "a", "--networks", *names, "--limits", "a=60"],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "ended with a limit of 60 s" in done.stdout
    assert "| stcn-tiny | graph | " in done.stdout


def test_without_the_published_cutie_ours_is_measured_and_the_cause_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "site" / "cutie"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no such library here')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    found = prove(tmp_path / "out", "--parts", "d")["d"]["cutie-small"]
    assert found["ovos-ray"]["fps"] > 0
    assert "no such library here" in found["rf-cutie"]["failed"]


@pytest.mark.ray
def test_runs_and_a_sweep_are_made_under_ray(tmp_path: Path) -> None:
    found = prove(tmp_path, "--parts", "b,c", "--limits", "b=400,c=400")
    one, two = found["b"]["one worker"], found["b"]["two workers, one killed"]
    assert one["steps"] == two["steps"] == 12
    assert one["scores"]
    assert one["of the bare step"] > 0
    assert not {"failed"} & (one.keys() | two.keys() | found["b"]["bare step"].keys() | found["b"]["checkpoint"].keys())
    assert two["killed after checkpoint"] == 4
    assert found["c"]["sweep"]["finished"] == 4
