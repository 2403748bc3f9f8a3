"""`train`, `sweep`, `show` and `ls`."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ovos_ray.cli.console import console
from ovos_ray.config import ExperimentConfig, digest, flatten, override, resolve_paths
from ovos_ray.errors import ConfigError
from ovos_ray.recipes import find, list_recipes, make
from ovos_ray.train.budget import count_labels
from ovos_ray.train.checks import check_config
from ovos_ray.train.pretraining import pin_pretraining, pretraining_stage
from ovos_ray.train.run_folder import RunFolder
from ovos_ray.tune.space import SearchSpace, Skipped, Trial, expand

__all__ = ["list_all", "print_config", "resolve", "show", "sweep", "train"]


def resolve(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration with absolute paths and tracking store, as workers need it."""
    from ovos_ray.track.sender import resolve_tracking_uri

    config = resolve_paths(config, Path.cwd())
    if not config.tracking_uri:
        return config
    return override(config, {"tracking_uri": resolve_tracking_uri(config.tracking_uri)})


def train(trainable: str, overrides: Sequence[str], *, dry_run: bool, verbose: bool) -> None:
    """Trains one run; prints configuration, budget and cost first.

    Raises:
        OvosError: The configuration or the data cannot be used.
    """
    config = pin_pretraining(override(make(trainable, ExperimentConfig), overrides))
    if not config.data.shards:
        raise ConfigError("no data.shards are given", "pack a dataset, then add data.shards=FOLDER")
    print_config(config)
    _print_stages([config])
    _print_plan(config)
    check_config(config)
    if dry_run:
        return
    from ovos_ray.cli.session import ray_session, watching
    from ovos_ray.track.provenance import provenance_tags
    from ovos_ray.train.loop import fit, pretraining_request
    from ovos_ray.train.worker import RunRequest

    config = resolve(config)
    began = time.perf_counter()
    with ray_session(verbose=verbose), watching(console, show_run=False) as watcher:
        tags = {**provenance_tags(kind="trial"), "ovos.trainable": trainable}
        request = RunRequest(
            config=config,
            experiment=trainable,
            run_key=f"run:{config.storage}:{config.name}",
            tags=tags,
            watcher=watcher,
            pretraining=pretraining_request(config, Path.cwd(), tags=tags, watcher=watcher),
        )
        result = fit(request)
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
) -> bool:
    """Runs a study; returns whether every trial finished. With `plain_processes` Ray is not started.

    Raises:
        OvosError: The study or the data cannot be used.
    """
    space = make(search_space, SearchSpace)
    trials, skipped = expand(space, override(make(space.trainable, ExperimentConfig), overrides))
    _print_trials(space, trials, skipped)
    if not trials[0].config.data.shards:
        raise ConfigError("no data.shards are given", "pack a dataset, then add data.shards=FOLDER")
    _print_stages([trial.config for trial in trials])
    _print_plan(trials[0].config, num_trials=len(trials))
    check_config(trials[0].config)
    if dry_run:
        return True
    from ovos_ray.cli.session import print_record, ray_session, watching
    from ovos_ray.track.provenance import provenance_tags
    from ovos_ray.tune.plain import run_plain
    from ovos_ray.tune.sweep import run_sweep

    trials = [Trial(trial.name, trial.values, resolve(trial.config)) for trial in trials]
    tags = provenance_tags(kind="trial")
    if plain_processes is not None:
        printer = functools.partial(print_record, console, show_run=True)
        result = run_plain(space, trials, tags=tags, watcher=printer, num_processes=plain_processes)
    else:
        with ray_session(verbose=verbose), watching(console, show_run=True) as watcher:
            result = run_sweep(space, trials, tags=tags, watcher=watcher, max_concurrent=max_concurrent)
    print_results(space, trials, result.results)
    for name in result.failed:
        console.print(f"[red]failed:[/] {escape(name)}")
    console.print(
        f"compare: ovos-ray report {space.name} --tracking-uri {trials[0].config.tracking_uri}", soft_wrap=True
    )
    return not result.failed


def show(recipe: str, overrides: Sequence[str]) -> None:
    """Prints the resolved configuration of a recipe, or the trials of a study."""
    made = find(recipe).make()
    if isinstance(made, SearchSpace):
        trials, skipped = expand(made, override(make(made.trainable, ExperimentConfig), overrides))
        _print_trials(made, trials, skipped)
        print_config(trials[0].config)
    elif isinstance(made, ExperimentConfig):
        print_config(pin_pretraining(override(made, overrides)))
    else:
        raise ConfigError(f"{recipe} makes a {type(made).__name__}, neither a configuration nor a study")


def list_all() -> None:
    """Prints recipes, studies and datasets."""
    from ovos_ray.data.description import describe, described_names

    for title, package in (("trainables", "trainables"), ("search spaces", "search_spaces")):
        table = Table("path", "what", title=title, title_justify="left", expand=False)
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


def print_results(space: SearchSpace, trials: Sequence[Trial], results: Any) -> None:
    """Prints J&F, J and F of every finished trial."""
    table = Table("trial", "J&F", "J", "F", "labels", "time", title=space.name, title_justify="left")
    for trial in trials:
        result = results.get(trial.name)
        if result is None:
            continue
        scores = [f"{result['scores'][name]:.1f}" if name in result["scores"] else "–" for name in ("jf", "j", "f")]
        table.add_row(trial.name, *scores, f"{result['label_percent']:.1f} %", f"{result['seconds']:.0f} s")
    console.print(table)


def _print_scores(scores: dict[str, float]) -> None:
    if scores:
        console.print("  ".join(f"{name} {value:.1f}" for name, value in scores.items()))


def _print_stages(configs: Sequence[ExperimentConfig]) -> None:
    """Prints every pretraining that is needed first, once, with its own cost."""
    stages = {stage.name: stage for config in configs if (stage := pretraining_stage(config)) is not None}
    for digest_, stage in stages.items():
        recipe = next(c.pretrain.recipe for c in configs if c.pretrain is not None and c.pretrain.digest == digest_)
        done = RunFolder.of(stage).result() is not None
        console.print(f"pretraining {digest_} ({recipe})" + (": finished before" if done else ""), highlight=False)
        if not done:
            _print_stages([stage])
            _print_plan(stage)


def _print_plan(config: ExperimentConfig, num_trials: int = 1) -> None:
    """Prints label budget, epochs and the estimated cost of a run."""
    from ovos_ray.data.plan import Plan
    from ovos_ray.data.shards import ShardIndex
    from ovos_ray.train.estimate import estimate

    if not config.data.shards:
        raise ConfigError("no data.shards are given", "pack a dataset, then add data.shards=FOLDER")
    indices = [ShardIndex.load(folder) for folder in config.data.shards]
    plan = Plan(indices, config.data, seed=config.seed, steps=config.train.steps)
    for index in indices:
        console.print(f"{index.dataset} {index.split}: {len(index.videos)} videos, {index.budget}", highlight=False)
    for excluded in plan.excluded:
        console.print(f"  left out {excluded.dataset}/{excluded.video}: {excluded.reason}", highlight=False)
    console.print(f"label budget: {count_labels(config, pretraining_stage(config))}", highlight=False)
    clips = config.train.steps * config.data.batch_size
    console.print(
        f"{config.train.steps} steps x {config.data.batch_size} clips = {clips / plan.epoch_length:.1f} epochs of "
        f"{plan.epoch_length} clips",
        highlight=False,
    )
    cost = estimate(config)
    console.print(f"estimate per trial: {cost}" if num_trials > 1 else f"estimate: {cost}", highlight=False)
    if num_trials > 1:
        hours = num_trials * cost.seconds / 3600
        console.print(f"{num_trials} trials one after another: {hours:.1f} h", highlight=False)


def _print_trials(space: SearchSpace, trials: Sequence[Trial], skipped: Sequence[Skipped]) -> None:
    table = Table(
        "trial", "digest", title=f"{space.name}: {len(trials)} trials of {space.trainable}", title_justify="left"
    )
    for trial in trials:
        table.add_row(escape(trial.name), trial.key)
    console.print(table)
    if space.table:
        console.print(f"reproduces {space.table}")
    for left_out in _merged(skipped):
        console.print(f"left out {escape(left_out.name)}: {escape(left_out.reason)}", soft_wrap=True)


def _merged(skipped: Sequence[Skipped]) -> list[Skipped]:
    """Names a combination once, not once a seed."""
    by_name = {re.sub(r" seed \d+$", "", s.name): s for s in reversed(skipped)}
    return [Skipped(name, s.reason) for name, s in reversed(by_name.items())]
