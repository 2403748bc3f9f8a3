"""Optuna learns from results in run folders, survives restarts, and never draws what it drew before."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path

import pytest

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import ConfigError
from ovos_ray.study.checks import check_searcher
from ovos_ray.study.expand import expand
from ovos_ray.study.space import Range, SearchSpace, Trial
from ovos_ray.train.run_folder import RunFolder

optuna = pytest.importorskip("optuna")
from ovos_ray.on_ray.optuna_searcher import LearnedDraws  # noqa: E402
from ovos_ray.study.draws import describe_draws  # noqa: E402

KEY = "optimizer.learning_rate"
SPACE = SearchSpace(
    name="study",
    trainable="none",
    ranges={KEY: Range(1e-5, 1e-1, log=True)},
    num_samples=24,
    seeds=(0,),
    searcher="optuna",
)


def draws(storage: Path, space: SearchSpace = SPACE) -> list[Trial]:
    return expand(space, ExperimentConfig(storage=str(storage)))[0]


def distance(rate: float) -> float:
    """Decades from the best rate, 1e-3."""
    return abs(math.log10(rate) + 3)


def begin(search: LearnedDraws, trials: list[Trial], number: int) -> tuple[ExperimentConfig, str]:
    """What a trial does first: take its values and claim its folder."""
    suggested = search.suggest(f"id{number}")
    assert isinstance(suggested, dict)
    (trial,) = (trial for trial in trials if trial.name == suggested["trial"])
    config = override(trial.config, suggested["values"])
    RunFolder.of(config).claim(config)
    return config, trial.name


def end(config: ExperimentConfig) -> None:
    rate = config.optimizer.learning_rate
    RunFolder.of(config).finish({"scores": {"jf": 80 - 10 * distance(rate)}})


def run(search: LearnedDraws, trials: list[Trial], numbers: range) -> list[float]:
    rates = []
    for number in numbers:
        config, _ = begin(search, trials, number)
        end(config)
        search.on_trial_complete(f"id{number}")
        rates.append(config.optimizer.learning_rate)
    return rates


def test_draws_close_in_on_what_scored_best(tmp_path: Path) -> None:
    trials = draws(tmp_path)
    assert [trial.name for trial in trials[:2]] == ["draw 0 seed 0", "draw 1 seed 0"]
    search = LearnedDraws(SPACE, trials)
    rates = run(search, trials, range(24))
    assert search.suggest("one more") == "FINISHED"
    # Random draws are one decade away on average (the range is two decades to either side).
    assert statistics.fmean(map(distance, rates[12:])) < 0.75
    again = draws(tmp_path / "again")
    assert run(LearnedDraws(SPACE, again), again, range(24)) == rates, "the same study draws the same"
    other = dataclasses.replace(SPACE, search_seed=1)
    assert run(LearnedDraws(other, draws(tmp_path / "other")), draws(tmp_path / "other"), range(1)) != rates[:1]
    assert describe_draws(SPACE, trials[:1]) == {"draw 0": f"draw 0 learning_rate {rates[0]:g}"}


def test_after_a_restart_results_are_told_again_and_runs_under_way_keep_their_values(tmp_path: Path) -> None:
    trials = draws(tmp_path)
    first = LearnedDraws(SPACE, trials)
    rates = run(first, trials, range(10))
    under_way, name = begin(first, trials, 10)  # then the driver dies

    second = LearnedDraws(SPACE, trials)
    (study,) = second._studies.values()
    assert [t.params[KEY] for t in study.trials] == rates
    assert [t.value for t in study.trials] == [80 - 10 * distance(rate) for rate in rates]
    resumed, resumed_name = begin(second, trials, 10)
    assert (resumed_name, resumed) == (name, under_way)
    end(resumed)
    second.on_trial_complete("id10")
    later = run(second, trials, range(11, 24))
    assert not set(later) & {*rates, resumed.optimizer.learning_rate}, "a draw came a second time"
    assert second.suggest("one more") == "FINISHED"
    assert statistics.fmean(map(distance, later)) < 0.75


def test_a_failed_run_teaches_nothing_and_stops_nothing(tmp_path: Path) -> None:
    trials = draws(tmp_path)
    search = LearnedDraws(SPACE, trials)
    begin(search, trials, 0)
    search.on_trial_complete("id0", error=True)
    (study,) = search._studies.values()
    assert [t.state.name for t in study.trials] == ["FAIL"]
    assert isinstance(search.suggest("next"), dict)


def test_each_setting_of_a_grid_axis_is_searched_by_itself(tmp_path: Path) -> None:
    space = dataclasses.replace(SPACE, axes={"network.name": ("stcn-tiny", "xmem-tiny")}, num_samples=2)
    trials = draws(tmp_path, space)
    assert [t.name for t in trials] == [f"{n} draw {i} seed 0" for n in ("stcn-tiny", "xmem-tiny") for i in (0, 1)]
    search = LearnedDraws(space, trials)
    run(search, trials, range(4))
    assert [len(study.trials) for study in search._studies.values()] == [2, 2]


def test_studies_that_optuna_cannot_draw_for_are_refused() -> None:
    for changes, words in (({"seeds": (0, 1)}, "1 ranges and 2 seeds"), ({"ranges": {}}, "0 ranges and 1 seeds")):
        with pytest.raises(ConfigError, match=words):
            check_searcher(dataclasses.replace(SPACE, **changes))  # type: ignore[arg-type]
    check_searcher(SPACE)
