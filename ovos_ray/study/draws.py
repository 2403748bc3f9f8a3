"""The values that a searcher has drawn for a study's ranges: read back from the folders of the runs it gave them to."""

from __future__ import annotations

from collections.abc import Sequence

from ovos_ray.config import ExperimentConfig, flatten
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.train.run_folder import RunFolder

__all__ = ["describe_draws", "drawn_values", "has_begun"]


def drawn_values(space: SearchSpace, config: ExperimentConfig) -> dict[str, float]:
    """Returns the values of the ranges that a run was given, from its folder; empty before it begins."""
    if not has_begun(config):
        return {}
    stored = flatten(RunFolder.of(config).config())
    return {key: stored[key] for key in space.ranges}


def describe_draws(space: SearchSpace, trials: Sequence[Trial]) -> dict[str, str]:
    """Returns what each configuration of a study turned out to be, such as `draw 3 learning_rate 0.0012`."""
    described = {}
    for trial in trials:
        values = [f"{key.rpartition('.')[2]} {value:g}" for key, value in drawn_values(space, trial.config).items()]
        described[trial.configuration] = " ".join([trial.configuration, *values])
    return described


def has_begun(config: ExperimentConfig) -> bool:
    """Whether a run has been given its values."""
    return RunFolder.of(config).claimed
