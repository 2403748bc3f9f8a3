"""What a study says when it is over, from results made by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest

from ovos_ray.cli import studies
from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import DataError
from ovos_ray.run.failure import forget_failure, note_failure
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import Failure, read_failure, summarise

SPACE = SearchSpace(
    name="s",
    trainable="none",
    axes={"optimizer.learning_rate": (1e-4, 1e-3, 1e-2)},
    seeds=(0, 1, 2),
)


def trials(storage: str = "runs") -> list[Trial]:
    return expand(SPACE, ExperimentConfig(storage=storage))[0]


def result(jf: float, **more: Any) -> dict[str, Any]:
    return {"scores": {"jf": jf, "j": jf - 1}, "seconds": 60.0, "label_percent": 5.0, **more}


def results() -> dict[str, dict[str, Any]]:
    names = [trial.name for trial in trials()]
    return {
        **{name: result(jf) for name, jf in zip(names[:3], (60.0, 64.0, 62.0), strict=True)},
        names[3]: result(70.0),
        names[4]: result(71.0),  # the third seed has failed
        names[6]: result(0.0, scores={}, stopped=True, validation={"jf": 12.0}),
    }


def test_configurations_are_ranked_by_the_mean_over_their_seeds() -> None:
    best, second, stopped = summarise(SPACE, trials(), results())
    assert (best.name, best.num_finished, best.num_trials) == ("learning_rate 0.001", 2, 3)
    assert best.scores["jf"].mean == 70.5
    assert best.scores["jf"].std == pytest.approx(math.sqrt(0.5))
    assert second.scores["jf"].text() == "62.0 ± 2.0"
    assert second.scores["j"].text() == "61.0 ± 2.0"
    assert (stopped.num_finished, stopped.num_stopped) == (0, 1)
    assert stopped.scores["val/jf"].text() == "12.0"
    assert "jf" not in stopped.scores, "a stopped trial has no final score"


def test_the_table_and_the_failures_say_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(studies.console, "_file", output)
    monkeypatch.setattr(studies.console, "_width", 160)
    studies.print_results(SPACE, trials(), results())
    reason = ("DataError: shard damaged", "pack it again")
    failures = [Failure("a seed 0", *reason), Failure("a seed 1", *reason), Failure("b seed 0", "lost")]
    studies.print_failures(failures, "ovos-ray sweep s")
    text = output.getvalue()
    rows = [line for line in text.splitlines() if "learning_rate" in line]
    assert [row.split()[2] for row in rows] == ["0.001", "0.0001", "0.01"]
    assert "70.5 ± 0.7" in rows[0]
    assert "2 of 3" in rows[0]
    assert "0 of 3 (1 stopped early)" in rows[2]
    assert text.count("DataError: shard damaged") == 1
    assert "a seed 0, a seed 1" in text
    assert text.count("What to do:") == 1
    assert text.rstrip().endswith("ovos-ray sweep s")


def test_the_reason_of_a_failure_outlives_its_process_and_is_forgotten_when_it_runs_again(tmp_path: Path) -> None:
    trial = trials(str(tmp_path))[0]
    assert "ended without a word" in read_failure(trial).reason
    note_failure(trial.config, DataError("shard damaged", "pack it again"))
    assert read_failure(trial) == Failure(trial.name, "DataError: shard damaged", "pack it again")
    note_failure(trial.config, ValueError("no"))
    assert read_failure(trial) == Failure(trial.name, "ValueError: no", "")
    forget_failure(trial.config)
    assert "ended without a word" in read_failure(trial).reason
