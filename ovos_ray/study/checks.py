"""Why a study refuses to run, found before anything starts: `problems_of` asks everything that can say no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ConfigError, DataError, MissingExtraError, OvosError
from ovos_ray.run.checks import check_config, check_validation
from ovos_ray.study.earlier import check_earlier
from ovos_ray.study.population import check_population
from ovos_ray.study.price import group_trials
from ovos_ray.study.space import SearchSpace, Trial

__all__ = ["check_metric", "check_scheduler", "check_searcher", "problems_of"]


def problems_of(
    space: SearchSpace, trials: Sequence[Trial], *, unscored: bool = False, replace: bool = False
) -> list[OvosError]:
    """Returns what would keep runs from being made or scored, equal problems once.

    Args:
        space: The study.
        trials: Its trials.
        unscored: Whether nothing is to be scored, on purpose.
        replace: Whether what was made with other settings is to be set aside.
    """
    from ovos_ray.evaluate.evaluation import check_benchmarks

    problems: dict[str, OvosError] = {}
    firsts = [group.trials[0] for group in group_trials(trials)]
    try:
        check_searcher(space)
        check_scheduler(space, firsts)
        if not unscored:
            check_metric(space, firsts)
    except OvosError as error:
        problems[error.message] = error
    for trial in firsts:
        config = trial.config
        try:
            if not config.data.shards:
                raise ConfigError("no data.shards are given", "pack a dataset, then add data.shards=FOLDER")
            check_config(config)
            check_benchmarks(config.evaluation)
        except OvosError as error:
            problems.setdefault(error.message, error)
    try:
        if not replace:
            check_earlier(space, trials)
    except OvosError as error:
        problems.setdefault(error.message, error)
    return list(problems.values())


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
        if not validation.source or not 0 < validation.every < steps:
            raise ConfigError(
                f"trial {trial.name!r}: scheduler = {space.scheduler!r} needs a selection split that is scored during "
                f"training; validation.root = {validation.source!r}, validation.every = {validation.every} "
                f"of {steps} steps",
                "add validation.root=DATASET and validation.every=STEPS (a split that is not the reported one), or "
                "scheduler=fifo",
            )
        check_validation(trial.config, chooses=True)
    if space.scheduler == "pbt":
        check_population(space, trials)


def check_metric(space: SearchSpace, trials: Sequence[Trial]) -> None:
    """Checks that the trials will have the score that the study compares them by.

    Raises:
        ConfigError: Some will have none; proposes the dataset that the shards were packed from.
    """
    stage, *name, _ = space.metric.split("/")
    for trial in trials:
        config = trial.config
        if stage == "val" and config.validation.source is None:
            key, remedy = "validation.root", "a labelled split that is not the reported one"
        elif stage == "final" and name and name[0] not in {one.name for one in config.evaluation.also}:
            key, remedy = "evaluation.also", f"{name[0]}=FOLDER"
        elif stage == "final" and not name and config.evaluation.source is None:
            key, remedy = "evaluation.root", _packed_from(config) or "DATASET"
        else:
            continue
        raise ConfigError(
            f"study {space.name} compares by {space.metric}, which will not come: {key} is not set "
            f"(trial {trial.name!r})",
            f"add {key}={remedy}; to train unscored on purpose, evaluation.root=none",
        )


def _packed_from(config: ExperimentConfig) -> str | None:
    """Returns the dataset that the shards were packed from, where it is still there."""
    from ovos_ray.data.shards.index import ShardIndex

    for folder in config.data.shards:
        try:
            root = ShardIndex.shared(folder).root
        except DataError:
            continue
        if root and Path(root).is_dir():
            return root
    return None


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
        import optuna  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        raise MissingExtraError("optuna", "optuna", "searcher = 'optuna'") from None
