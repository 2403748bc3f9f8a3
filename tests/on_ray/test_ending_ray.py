"""Ctrl-C under Ray: the last step of a run is written down, and nothing is called failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from interrupted import interrupted, interrupted_caller

from ovos_ray.train.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_ctrl_c_lets_a_run_write_down_where_it_is(num_workers: int, shards: Path, tmp_path: Path) -> None:
    words = ["train", "trainables.one_shot", f"train.num_workers={num_workers}"]
    (run,) = interrupted(words, shards, tmp_path)
    assert RunFolder.at(str(run.parent), run.name).checkpoints().latest()
    assert not (run / "failure.json").exists()


def test_ctrl_c_fails_no_trial_of_a_study_and_lets_them_write_what_they_have(shards: Path, tmp_path: Path) -> None:
    (run,) = interrupted(["sweep", "search_spaces.smoke", "--max-concurrent", "1"], shards, tmp_path)
    assert RunFolder.at(str(run.parent), run.name).checkpoints().latest()
    assert not (run / "failure.json").exists()
    assert not (run / "result.json").exists()


def test_ctrl_c_leaves_no_workers_to_a_program_that_goes_on_using_ray(shards: Path, tmp_path: Path) -> None:
    left = interrupted_caller(["train.num_workers=2"], shards, tmp_path)
    assert left == "left: 0 2.0"
    assert not list((tmp_path / "runs").rglob("failure.json"))
