"""`train`, `sweep`, `show` and `ls`."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Column, Table

from ovos_ray.cli import studies
from ovos_ray.cli.console import console
from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.config.digest import digest, resolve_paths
from ovos_ray.config.recipes import find, list_recipes, make
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.evaluation import check_benchmarks
from ovos_ray.run.checks import check_config
from ovos_ray.run.pretraining import pin_pretraining
from ovos_ray.study.expand import expand_study
from ovos_ray.study.price import Group, group_trials, pretraining_groups
from ovos_ray.study.space import SearchSpace, Trial

__all__ = ["list_all", "print_config", "resolve", "show", "sweep", "train"]


def resolve(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration with absolute paths and tracking store, as workers need it."""
    from ovos_ray.track.servers import resolve_tracking_uri

    config = resolve_paths(config, Path.cwd())
    if not config.tracking_uri:
        return config
    return override(config, {"tracking_uri": resolve_tracking_uri(config.tracking_uri)})


def train(
    trainable: str, overrides: Sequence[str], *, dry_run: bool, verbose: bool, wait_for_nodes: float = 15.0
) -> None:
    """Trains one run; prints configuration, budget and cost first.

    Args:
        trainable: Path of its recipe.
        overrides: Changes, `key=value`.
        dry_run: Whether nothing is trained.
        verbose: Whether Ray's own log is shown.
        wait_for_nodes: Minutes to wait for nodes; a cluster of the command's own has what the machine has.

    Raises:
        OvosError: The configuration or the data cannot be used.
    """
    config = pin_pretraining(override(make(trainable, ExperimentConfig), overrides))
    if not config.data.shards:
        raise ConfigError("no data.shards are given", "pack a dataset, then add data.shards=FOLDER")
    print_config(config)
    stages = pretraining_groups([_alone(config)])
    for one in [*stages, _alone(config)]:
        if not one.config.data.shards:  # of a stage; the run's own are there
            raise ConfigError(
                f"{one.name}: no data.shards are given for it",
                "pack what it trains on, then add pretrain.overrides=data.shards=FOLDER",
            )
        check_config(one.config)
        check_benchmarks(one.config.evaluation)
    for one in [*stages, _alone(config)]:
        _print_plan(one)
    if dry_run:
        return
    from ovos_ray.on_ray.fit import fit
    from ovos_ray.on_ray.session import mention_idle_gpus, ray_session, watching
    from ovos_ray.run.pretraining import pretraining_request
    from ovos_ray.run.request import RunRequest
    from ovos_ray.track.provenance import provenance_tags

    config = resolve(config)
    began = time.perf_counter()
    several = any(one.config.train.num_workers > 1 for one in [*stages, _alone(config)])
    with ray_session(verbose=verbose, several_workers=several), watching(console, show_run=False) as watcher:
        mention_idle_gpus(console, [config])
        tags = {**provenance_tags(kind="trial"), "ovos.trainable": trainable}
        request = RunRequest(
            config=config,
            experiment=trainable,
            run_key=f"run:{config.storage}:{config.name}",
            tags=tags,
            watcher=watcher,
            pretraining=pretraining_request(config, Path.cwd(), tags=tags, watcher=watcher),
        )
        result = fit(request, wait_s=_patience_s(wait_for_nodes))
    if result.resumed_finished:
        console.print(f"{config.name} was finished before; nothing to do (another name=… starts another run)")
    else:
        console.print(f"finished in {time.perf_counter() - began:.0f} s")
    if (choice := result.values.get("checkpoint", {})).get("rule") == "best":
        console.print(f"chosen: step {choice['step']}, the best of {config.validation.split} ({choice['val/jf']:.1f})")
    _print_scores(result.values["scores"])
    console.print(f"run folder: {result.folder.storage.folder}", soft_wrap=True)


def sweep(
    search_space: str,
    overrides: Sequence[str],
    *,
    dry_run: bool,
    max_concurrent: int | None,
    plain_processes: int | None,
    verbose: bool,
    wait_for_nodes: float = 15.0,
) -> bool:
    """Runs a study; returns whether every trial finished. With `plain_processes` Ray is not started.

    Raises:
        OvosError: The study or the data cannot be used.
    """
    space, trials, skipped = expand_study(make(search_space, SearchSpace), overrides)
    groups = group_trials(trials)
    studies.print_study(space, groups, skipped)
    stages = pretraining_groups(groups)
    problems = studies.print_label_budgets([*stages, *groups])
    problems += studies.problems_of(space, groups)
    if dry_run:
        studies.print_cost(space, [*stages, *groups])
        for problem in problems:
            console.print(f"[yellow]it cannot run yet:[/] {escape(str(problem))}", soft_wrap=True, highlight=False)
        return True
    if problems:
        raise problems[0]
    from ovos_ray.study.draws import describe_draws
    from ovos_ray.study.population import describe_members
    from ovos_ray.track.provenance import provenance_tags

    trials = [Trial(trial.name, trial.values, resolve(trial.config)) for trial in trials]
    tags = provenance_tags(kind="trial")
    if plain_processes is not None:
        from ovos_ray.run.progress import print_record
        from ovos_ray.study.here import run_plain

        printer = functools.partial(print_record, console, show_run=True)
        result = run_plain(space, trials, tags=tags, watcher=printer, num_processes=plain_processes)
    else:
        from ovos_ray.on_ray.session import mention_idle_gpus, ray_session, watching
        from ovos_ray.on_ray.study import run_sweep

        several = any(group.config.train.num_workers > 1 for group in [*stages, *groups])
        with ray_session(verbose=verbose, several_workers=several), watching(console, show_run=True) as watcher:
            mention_idle_gpus(console, [trial.config for trial in trials])
            patience_s = _patience_s(wait_for_nodes)
            result = run_sweep(
                space, trials, tags=tags, watcher=watcher, max_concurrent=max_concurrent, wait_s=patience_s
            )
    names = describe_draws(space, trials) if space.searcher == "optuna" else None
    courses = describe_members(space, trials) if space.scheduler == "pbt" else {}
    if courses:
        names = {configuration: course.partition(":")[0] for configuration, course in courses.items()}
    studies.print_results(space, trials, result.results, names)
    for course in courses.values():
        console.print(course, soft_wrap=True, highlight=False)
    studies.print_failures(result.failed, " ".join(["ovos-ray sweep", search_space, *overrides]))
    console.print(
        f"compare: ovos-ray report {space.name} --tracking-uri {trials[0].config.tracking_uri}", soft_wrap=True
    )
    return not result.failed


def show(recipe: str, overrides: Sequence[str]) -> None:
    """Prints the resolved configuration of a recipe, or the trials of a study."""
    made = find(recipe).make()
    if isinstance(made, SearchSpace):
        space, trials, skipped = expand_study(made, overrides)
        studies.print_study(space, group_trials(trials), skipped)
        print_config(trials[0].config)
    elif isinstance(made, ExperimentConfig):
        print_config(pin_pretraining(override(made, overrides)))
    else:
        raise ConfigError(f"{recipe} makes a {type(made).__name__}, neither a configuration nor a study")


def list_all() -> None:
    """Prints recipes, studies and datasets."""
    from ovos_ray.data.folders.description import described_names
    from ovos_ray.data.folders.open import describe

    for title, package in (("trainables", "trainables"), ("search spaces", "search_spaces")):
        path = Column("path", no_wrap=True)  # to be copied whole
        table = Table(path, "what", title=title, title_justify="left", expand=False)
        for recipe in list_recipes(package):
            table.add_row(recipe.path, escape(recipe.summary))
        console.print(table)
    table = Table("name", "what", "label budget", title="datasets", title_justify="left")
    for name in described_names():
        description = describe(name)
        table.add_row(name, escape(description.title), escape(description.label_budget))
    console.print(table)


def print_config(config: ExperimentConfig) -> None:
    """Prints every setting by its dotted key."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in flatten(config).items():
        table.add_row(key, escape(repr(value)))
    console.print(table)
    console.print(f"digest {digest(config)}", highlight=False)


def _patience_s(minutes: float) -> float:
    """Returns how long to wait for nodes: not at all on a cluster that this command has started on this machine."""
    return 60 * minutes if "RAY_ADDRESS" in os.environ else 0.0


def _print_scores(scores: dict[str, float]) -> None:
    if scores:
        console.print("  ".join(f"{name} {value:.1f}" for name, value in scores.items()))


def _alone(config: ExperimentConfig) -> Group:
    return Group(config.name, (Trial(config.name, {}, config),))


def _print_plan(run: Group) -> None:
    """Prints label budget, epochs and the estimated cost of a run."""
    from ovos_ray.run.estimate import estimate

    if problems := studies.print_label_budgets([run]):
        raise problems[0]
    console.print(f"estimate for {run.name}: {estimate(run.config)}", highlight=False)
