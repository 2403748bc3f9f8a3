"""`train`: one run."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ovos_ray.cli.completion import complete_recipe
from ovos_ray.cli.console import console
from ovos_ray.cli.options import (
    Again,
    On,
    Overrides,
    Replace,
    Verbose,
    WaitForNodes,
    require_dry_run,
    trial_tags,
)
from ovos_ray.errors import ConfigError

if TYPE_CHECKING:
    from ovos_ray.config import ExperimentConfig
    from ovos_ray.run.estimate import Cost
    from ovos_ray.run.prepare import RunResult

__all__ = ["train"]

EXAMPLE = "ovos-ray train trainables.one_shot data.shards=shards/davis train.steps=500"


def train(
    trainable: Annotated[
        str,
        typer.Argument(
            help="A recipe, such as trainables.one_shot; a file, such as run.yaml; or a run's folder.",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print configuration and cost, train nothing.")] = False,
    on: On = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="In this process, without Ray.")] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Go on from a finished run of this name to a higher train.steps.")
    ] = False,
    replace: Replace = False,
    again: Again = False,
    wait_for_nodes: WaitForNodes = 15.0,
    verbose: Verbose = False,
) -> None:
    """Trains one run. The same name and storage resume it."""
    from ovos_ray.cli.show import print_config
    from ovos_ray.run.prepare import RunResult
    from ovos_ray.run.pretraining import pin
    from ovos_ray.run.request import config_from, resolve
    from ovos_ray.run.same import was_taken_over
    from ovos_ray.train.run_folder import RunFolder

    config = pin(config_from(trainable, overrides or []))
    if extend:
        from ovos_ray.run.extend import extended

        config = extended(resolve(config))
    if not config.data.shards:
        raise ConfigError("no data.shards are given", "pack a dataset, then add data.shards=FOLDER")
    require_dry_run(on, dry_run)
    folder = RunFolder.of(config)
    if not replace:
        folder.check(config)
    if not dry_run and folder.finished(config) and not (again and was_taken_over(config)):
        _print_result(config, RunResult(folder, folder.result() or {}, resumed_finished=True))
        return
    print_config(config)
    several = _print_plan(config, dry_run=dry_run, on=on, no_ray=no_ray)
    if dry_run:
        return
    began = time.perf_counter()
    config = resolve(config)
    if no_ray:
        result = _fit_here(trainable, config, replace=replace, again=again)
    else:
        options = {"replace": replace, "again": again}
        result = _fit(trainable, config, wait_for_nodes, several=several, verbose=verbose, **options)
    _print_result(config, result, time.perf_counter() - began)


def _print_result(config: ExperimentConfig, result: RunResult, seconds: float = 0.0) -> None:
    if there := result.values.get("taken_over"):
        console.print(f"{config.name} is the same as the finished run {there}, and was not trained (--again does)")
    elif result.resumed_finished:
        console.print(f"{config.name} was finished before; nothing to do (another name=… starts another run)")
    else:
        console.print(f"finished in {seconds:.0f} s")
    if (choice := result.values.get("checkpoint", {})).get("rule") == "best":
        console.print(f"chosen: step {choice['step']}, the best of {config.validation.split} ({choice['val/jf']:.1f})")
    if scores := result.values["scores"]:
        console.print("  ".join(f"{name} {value:.1f}" for name, value in scores.items()))
    console.print(f"run folder: {result.folder.storage.folder}")


def _print_plan(config: ExperimentConfig, *, dry_run: bool, on: str | None, no_ray: bool) -> bool:
    """Prints label budget, epochs and the estimated cost of a run and its pretraining; refuses what cannot be run.

    A dry run also says whether they are fed.

    Returns whether any of them has several workers.
    """
    from ovos_ray.cli.studies import dry_run_problems, nodes_at_hand, print_label_budgets
    from ovos_ray.evaluate.evaluation import check_benchmarks
    from ovos_ray.run.checks import check_config
    from ovos_ray.run.estimate import estimate
    from ovos_ray.run.stored_times import describe_stored, stored_cost
    from ovos_ray.study.price import Group, pretraining_groups
    from ovos_ray.study.space import Trial

    run = Group(config.name, (Trial(config.name, {}, config),))
    groups = [*pretraining_groups([run]), run]
    several = any(group.config.train.num_workers > 1 for group in groups)
    if no_ray and several:
        raise ConfigError("--no-ray trains with one worker", "add train.num_workers=1, or leave out --no-ray")
    for group in groups:
        if not group.config.data.shards:  # of a stage; the run's own are there
            raise ConfigError(
                f"{group.name}: no data.shards are given for it",
                "pack what it trains on, then add pretrain.overrides=data.shards=FOLDER",
            )
        check_config(group.config)
        check_benchmarks(group.config.evaluation)
    for group in groups:
        if problems := print_label_budgets([group]):
            raise problems[0]
    if dry_run and (found := dry_run_problems(groups, on)):
        raise found[0]
    costs: dict[str, Cost | None] = {}
    for group in groups:
        cost = costs[group.name] = estimate(group.config) if on is None else stored_cost(group.config, on)
        if cost is None:
            what = f"no such step is stored for {on}"
        else:
            what = str(cost) if on is None else f"{cost.seconds / 3600:,.1f} h"
        console.print(f"estimate for {group.name}: {what}")
    if on is not None:
        console.print(describe_stored(on))
    if dry_run:
        from ovos_ray.cli.decoding import print_decoding

        print_decoding(groups, costs, nodes_at_hand()[0] if on is None else [], no_ray=no_ray)
    return several


def _fit(
    trainable: str, config: ExperimentConfig, wait_for_nodes: float, *, several: bool, verbose: bool, **options: bool
) -> RunResult:
    from ovos_ray.on_ray.fit import fit
    from ovos_ray.on_ray.room import patience_s
    from ovos_ray.on_ray.session import mention_idle_gpus, ray_session, watching
    from ovos_ray.run.prepare import request_for

    with ray_session(verbose=verbose, several_workers=several), watching(console, show_run=False) as watcher:
        mention_idle_gpus(console, [config])
        request = request_for(config, trainable, tags=trial_tags(), watcher=watcher, **options)
        return fit(request, wait_s=patience_s(wait_for_nodes))


def _fit_here(trainable: str, config: ExperimentConfig, **options: bool) -> RunResult:
    from ovos_ray.run.here import fit_here
    from ovos_ray.run.prepare import request_for
    from ovos_ray.run.progress import print_record

    watcher = functools.partial(print_record, console, show_run=False)
    return fit_here(request_for(config, trainable, tags=trial_tags(), watcher=watcher, **options))
