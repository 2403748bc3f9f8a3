"""`sweep`: a study."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovos_ray.cli.completion import complete_study
from ovos_ray.cli.console import console, tell
from ovos_ray.cli.options import (
    Again,
    On,
    Overrides,
    Replace,
    Verbose,
    WaitForNodes,
    require_dry_run,
    trial_tags,
    typed,
)
from ovos_ray.errors import ResourceError

if TYPE_CHECKING:
    from ovos_ray.run.estimate import Cost
    from ovos_ray.study.space import SearchSpace, Trial
    from ovos_ray.study.summary import SweepResult

__all__ = ["sweep"]

EXAMPLE = "ovos-ray sweep search_spaces.backward_strategy data.shards=shards/davis evaluation.root=DAVIS/2017"


def sweep(
    search_space: Annotated[
        str,
        typer.Argument(help="A study, such as search_spaces.backward_strategy.", autocompletion=complete_study),
    ],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and their cost.")] = False,
    on: On = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at a time.")] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="In processes on this machine, without Ray.")] = False,
    num_processes: Annotated[int, typer.Option(help="With --no-ray: trials at a time.")] = 1,
    replace: Replace = False,
    again: Again = False,
    wait_for_nodes: WaitForNodes = 15.0,
    verbose: Verbose = False,
) -> None:
    """Runs a study on Ray Tune, logged to MLflow. The same command resumes it."""
    from ovos_ray.cli import studies
    from ovos_ray.cli.decoding import print_decoding
    from ovos_ray.config.recipes import make
    from ovos_ray.run.request import resolve
    from ovos_ray.study.checks import problems_of
    from ovos_ray.study.draws import describe_draws
    from ovos_ray.study.expand import expand_study
    from ovos_ray.study.population import describe_members
    from ovos_ray.study.price import group_trials, pretraining_groups
    from ovos_ray.study.space import SearchSpace, Trial
    from ovos_ray.track.servers import refuse_secrets

    require_dry_run(on, dry_run)
    space, trials, skipped = expand_study(make(search_space, SearchSpace), overrides or [])
    refuse_secrets(trials[0].config.tracking_uri)
    groups = group_trials(trials)
    studies.print_study(space, groups, skipped)
    stages = pretraining_groups(groups)
    problems = studies.print_label_budgets([*stages, *groups])
    unreadable = bool(problems)
    unscored = {"evaluation.root=", "evaluation.root=none"} & {word.lower() for word in overrides or []}
    problems += problems_of(space, trials, unscored=bool(unscored), replace=replace)
    if dry_run:
        problems += studies.dry_run_problems([*stages, *groups], on)
        nodes, where = studies.nodes_at_hand() if on is None else ([], "")
        costs: Mapping[str, Cost | None] = {}
        if not any(isinstance(problem, ResourceError) for problem in problems):  # a GPU's work is not priced on a CPU
            costs = studies.print_cost(space, [*stages, *groups], nodes, where, on)
        if not unreadable:
            print_decoding([*stages, *groups], costs, nodes, no_ray=no_ray)
        for problem in problems:
            tell("it cannot run yet:", problem, style="yellow")
        if problems:
            raise typer.Exit(1)
        return
    if problems:
        raise problems[0]
    trials = [Trial(trial.name, trial.values, resolve(trial.config)) for trial in trials]
    if no_ray:
        result = _run_here(space, trials, num_processes, replace=replace, take_over_same=not again)
    else:
        from ovos_ray.on_ray.room import patience_s

        on_ray = {"max_concurrent": max_concurrent, "wait_s": patience_s(wait_for_nodes), "replace": replace}
        on_ray["take_over_same"] = not again
        several = any(group.config.train.num_workers > 1 for group in [*stages, *groups])
        result = _run_on_ray(space, trials, several, verbose, **on_ray)
    names = describe_draws(space, trials) if space.searcher == "optuna" else None
    courses = describe_members(space, trials) if space.scheduler == "pbt" else {}
    if courses:
        names = {configuration: course.partition(":")[0] for configuration, course in courses.items()}
    studies.print_results(space, trials, result.results, names)
    for course in courses.values():
        console.print(course)
    studies.print_failures(result.failed, typed())
    if store := trials[0].config.tracking_uri:
        console.print(f"compare: {shlex.join(['ovos-ray', 'report', space.name, '--tracking-uri', store])}")
    if result.failed:
        raise typer.Exit(1)


def _run_here(space: SearchSpace, trials: list[Trial], num_processes: int, **options: bool) -> SweepResult:
    from ovos_ray.run.progress import print_record
    from ovos_ray.study.here import run_plain

    printer = functools.partial(print_record, console, show_run=True)
    return run_plain(space, trials, tags=trial_tags(), watcher=printer, num_processes=num_processes, **options)


def _run_on_ray(space: SearchSpace, trials: list[Trial], several: bool, verbose: bool, **options: Any) -> SweepResult:
    from ovos_ray.on_ray.session import mention_idle_gpus, ray_session, watching
    from ovos_ray.on_ray.study import run_sweep

    with ray_session(verbose=verbose, several_workers=several), watching(console, show_run=True) as watcher:
        mention_idle_gpus(console, [trial.config for trial in trials])
        return run_sweep(space, trials, tags=trial_tags(), watcher=watcher, **options)
