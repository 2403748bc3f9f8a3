"""Optuna draws the ranges of a study, one run after another, from what it has seen so far.

What it has seen lies in the run folders, not in a searcher's state: after a restart finished runs are told again, and a
run that was under way keeps the values it was given. Settings on grid axes get an Optuna study each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from ovos_ray.seeding import generator
from ovos_ray.study.draws import drawn_values, has_begun
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.summary import score_of
from ovos_ray.train.run_folder import RunFolder

__all__ = ["LearnedDraws"]


class LearnedDraws(Searcher):  # type: ignore[misc]  # ray is untyped
    """Tune's view of Optuna: hands out the draws of a study in order.

    Args:
        space: The study.
        trials: All its trials, in order; their configurations as they are run, but for the ranges.
    """

    def __init__(self, space: SearchSpace, trials: Sequence[Trial]) -> None:
        super().__init__(metric=space.metric, mode="max")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._distributions: dict[str, Any] = {
            key: optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
            for key, values in space.ranges.items()
        }
        self._studies: dict[str, Any] = {}
        self._num_begun = sum(has_begun(trial.config) for trial in trials)
        self._asked: dict[str, tuple[Trial, Any]] = {}
        unfinished = [trial for trial in trials if not self._tell_again(trial)]
        # Runs that were under way come first: their values are given, and others learn from them.
        self._todo = sorted(unfinished, key=lambda trial: not has_begun(trial.config))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the next run's name and values (see `ray.tune.search.Searcher`)."""
        if not self._todo:
            return str(Searcher.FINISHED)
        trial = self._todo.pop(0)
        study = self._study(trial)
        if has_begun(trial.config):
            study.enqueue_trial(drawn_values(self._space, trial.config))
        asked = study.ask(self._distributions)
        self._asked[trial_id] = trial, asked
        values = {key: self._space.ranges[key].rounded(value) for key, value in asked.params.items()}
        return {"trial": trial.name, "values": values}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how a run went; one without a score is counted as failed."""
        from optuna.trial import TrialState

        trial, asked = self._asked.pop(trial_id)
        score = score_of(self._space.metric, RunFolder.of(trial.config).result() or {})
        study = self._study(trial)
        study.tell(asked, state=TrialState.FAIL) if score is None else study.tell(asked, score)

    def _tell_again(self, trial: Trial) -> bool:
        """Tells Optuna of a run that ended in an earlier session; returns whether it had."""
        import optuna

        result = RunFolder.of(trial.config).result()
        if result is None:
            return False
        if (score := score_of(self._space.metric, result)) is not None:
            values = drawn_values(self._space, trial.config)
            told = optuna.trial.create_trial(params=values, distributions=self._distributions, value=score)
            self._study(trial).add_trial(told)
        return True

    def _study(self, trial: Trial) -> Any:
        import optuna

        ranges = {*self._space.ranges, "seed"}
        key = repr([(name, value) for name, value in trial.values.items() if name not in ranges])
        if key not in self._studies:
            # Another seed after a restart: with the same one the first draws would come a second time.
            seed = int(generator(self._space.search_seed, self._num_begun, f"optuna {key}").integers(2**31))
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=_startup(self._space))
            self._studies[key] = optuna.create_study(direction="maximize", sampler=sampler)
        return self._studies[key]

    def save(self, checkpoint_path: str) -> None:
        """Leaves the empty file that Tune expects: everything it learned lies in the run folders."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing, see `save`."""


def _startup(space: SearchSpace) -> int:
    """How many draws are random before Optuna trusts what it saw: a third, and at most its own default of ten."""
    return min(10, max(2, space.num_samples // 3))
