"""Which of Tune's schedulers and searchers a study runs under, and whether it can: known before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from ovos_ray.errors import ConfigError, MissingExtraError
from ovos_ray.run.checks import check_validation
from ovos_ray.study.population import check_population
from ovos_ray.study.space import SearchSpace, Trial

__all__ = ["check_scheduler", "check_searcher"]


def check_scheduler(space: SearchSpace, trials: Sequence[Trial]) -> None:
    """Checks that the trials report what the scheduler compares, before anything is started.

    Raises:
        ConfigError: They do not, or the scheduler cannot be used.
    """
    if space.scheduler == "fifo":
        return
    if not space.metric.startswith("val/"):
        raise ConfigError(
            f"study {space.name}: scheduler = {space.scheduler!r} compares trials while they train, "
            f"metric = {space.metric!r} is only known at the end",
            "set metric=val/jf and give a selection split as validation.root",
        )
    for trial in trials:
        validation, steps = trial.config.validation, trial.config.train.steps
        if not validation.root or not 0 < validation.every < steps:
            raise ConfigError(
                f"trial {trial.name!r}: scheduler = {space.scheduler!r} needs a selection split that is scored during "
                f"training; validation.root = {validation.root!r}, validation.every = {validation.every} "
                f"of {steps} steps",
                "add validation.root=DATASET and validation.every=STEPS (a split that is not the reported one), or "
                "scheduler=fifo",
            )
        check_validation(trial.config, chooses=True)
    if space.scheduler == "pbt":
        check_population(space, trials)


def check_searcher(space: SearchSpace) -> None:
    """Checks that Optuna can draw for this study.

    Raises:
        ConfigError: There is nothing to draw, or more than one run per draw.
        MissingExtraError: Optuna is not installed.
    """
    if space.searcher != "optuna":
        return
    if not space.ranges or len(space.seeds) != 1:
        raise ConfigError(
            f"study {space.name}: searcher = 'optuna' draws from ranges and learns from one run per draw; there are "
            f"{len(space.ranges)} ranges and {len(space.seeds)} seeds",
            "give it ranges and seeds=0, and confirm the best draw with three seeds; or searcher=random",
        )
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("optuna", "optuna", "searcher = 'optuna'") from None
