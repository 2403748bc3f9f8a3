"""What the terminal shows of a study: its configurations and their cost before, its results and failures after."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from ovos_ray.cli.console import console, counted, duration, printable, tell
from ovos_ray.errors import OvosError, first_line
from ovos_ray.run.resources import check_gpu, max_concurrent
from ovos_ray.study.population import generation_ends
from ovos_ray.study.price import Group, price
from ovos_ray.study.space import SearchSpace, Skipped, Trial
from ovos_ray.study.summary import Failure, summarise

if TYPE_CHECKING:
    from ovos_ray.run.estimate import Cost

__all__ = [
    "Nodes",
    "dry_run_problems",
    "nodes_at_hand",
    "print_cost",
    "print_failures",
    "print_label_budgets",
    "print_results",
    "print_study",
]

Nodes = Sequence[Mapping[str, float]]
_STOPPING = ("asha", "median")
_START_UP_S = 1  # benchmarks/README.md, "The overhead of a sweep"


def print_study(space: SearchSpace, groups: Sequence[Group], skipped: Sequence[Skipped]) -> None:
    """Prints the configurations of a study, and the combinations it leaves out with the reason."""
    num_trials = sum(len(group.trials) for group in groups)
    recipes = sorted({str(trial.values.get("trainable", space.trainable)) for g in groups for trial in g.trials})
    what = f"{counted(num_trials, 'trial')} of {counted(len(groups), 'configuration')}"
    title = f"{space.name}: {what} of {', '.join(recipes)}"
    name = Column("configuration", no_wrap=True)
    table = Table(name, "seeds", "steps", "first digest", title=title, title_justify="left")
    for group in groups:
        seeds = ", ".join(str(trial.config.seed) for trial in group.trials)
        table.add_row(group.name, seeds, f"{group.config.train.steps:,}", group.trials[0].key)
    console.print(table)
    stopping = f"; {space.scheduler} stops poor trials early" if space.scheduler in _STOPPING else ""
    if space.scheduler == "pbt" and groups[0].config.validation.every:
        ends = generation_ends(groups[0].config)
        stopping = f"; a population of {num_trials}, {len(ends)} generations, one every {ends[0]:,} steps"
    console.print(f"compared by {space.metric}{stopping}")
    if space.table:
        console.print(f"reproduces {space.table}")
    for (reason, remedy), names in _by_reason(skipped).items():
        named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        console.print(f"left out {named}: {reason}")
        if remedy:
            console.print(f"  to run it: {remedy}")


def print_label_budgets(groups: Sequence[Group]) -> list[OvosError]:
    """Prints label budget and epochs of every distinct data set-up; returns what is wrong with the data."""
    from ovos_ray.data.clips.plan import Plan
    from ovos_ray.data.shards.index import ShardIndex
    from ovos_ray.run.labels import count_labels
    from ovos_ray.run.pretraining import pretraining_stage

    problems = []
    seen: set[Any] = set()
    shown: set[str] = set()
    for group in groups:
        config, data, steps = group.config, group.config.data, group.config.train.steps
        key = (dataclasses.replace(data, max_skip=(), augmentation=None), steps, config.validation, config.pretrain)
        if not data.shards or key in seen:
            continue
        seen.add(key)
        try:
            indices = [ShardIndex.shared(folder) for folder in data.shards]
            plan = Plan(indices, data, seed=0, steps=steps)
            labels = count_labels(config, pretraining_stage(config))
        except OvosError as error:
            problems.append(error)
            continue
        for folder, index in zip(data.shards, indices, strict=True):
            if folder not in shown:
                shown.add(folder)
                console.print(f"{index.dataset} {index.split}: {counted(len(index.videos), 'video')}, {index.budget}")
        for excluded in plan.excluded:
            line = f"  left out {excluded.dataset}/{excluded.video}: {excluded.reason}"
            if line not in shown:
                shown.add(line)
                console.print(line)
        if (line := f"label budget of {group.name}: {labels}") not in shown:
            console.print(line)
        epochs = steps * data.batch_size / plan.epoch_length
        console.print(
            f"  {steps:,} steps x {data.batch_size} clips of {data.clip_length} frames = {epochs:,.1f} epochs of "
            f"{plan.epoch_length:,} clips",
        )
    return problems


def print_cost(
    space: SearchSpace, groups: Sequence[Group], nodes: Nodes, where: str, on: str | None = None
) -> dict[str, Cost | None]:
    """Measures and prints what each configuration and the whole study cost, and how many trials run at a time.

    Args:
        space: The study; where a scheduler stops trials early, the cost is an upper bound.
        groups: Its configurations, pretrainings included.
        nodes: What they are to run on, from `nodes_at_hand`.
        where: The name of that.
        on: Price for this GPU with stored step times; None: measure here.

    Returns:
        The cost of a trial of each configuration, by its name; None where no such step is stored.
    """
    from ovos_ray.run.stored_times import describe_stored

    at_most = "at most " if space.scheduler in _STOPPING else ""
    each = "a trial and generation" if space.scheduler == "pbt" else "a trial"
    with console.status("measuring a few steps of each kind of configuration") as status:
        cost = price(groups, lambda name: status.update(Text(printable(f"measuring a few steps of {name}"))), on=on)
    name = Column("estimate for", no_wrap=True)
    table = Table(name, "per trial", "GiB each worker", "trials", title="cost", title_justify="left")
    for kind in cost.kinds:
        named = kind.groups[0].name + (f" and {len(kind.groups) - 1} more" if len(kind.groups) > 1 else "")
        if kind.cost is None:
            table.add_row(named, "not stored", "–", str(kind.num_trials))
            continue
        memory = "–" if math.isnan(kind.cost.memory_gib) else f"{kind.cost.memory_gib:.1f}"
        table.add_row(named, duration(kind.cost.seconds), memory, str(kind.num_trials))
    console.print(table)
    costs = {group.name: kind.cost for kind in cost.kinds for group in kind.groups}
    num_trials = sum(kind.num_trials for kind in cost.kinds)
    if on is not None:
        known = sum(kind.num_trials for kind in cost.kinds if kind.cost is not None)
        console.print(
            f"{known} of {counted(num_trials, 'trial')}: {at_most}{cost.processor_hours:,.1f} {on.upper()}-hours"
        )
        console.print(describe_stored(on))
        return costs
    wants_gpus = any(group.config.train.gpus_per_worker for group in groups)
    remark = " (no GPU here: GPU-hours are not measured)" if wants_gpus and cost.unit == "CPU-hours" else ""
    console.print(
        f"{counted(num_trials, 'trial')}: {at_most}{cost.processor_hours:,.1f} {cost.unit} at this machine's speed"
        f"{remark}; scoring, start-up ({_START_UP_S} s {each} here) and pretraining come on top",
    )
    if not nodes:
        console.print(f"trials at a time: unknown ({where})")
        return costs
    resources = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    at_a_time = min(max_concurrent([group.config.train for group in groups], resources), num_trials)
    console.print(
        f"trials at a time on {where} ({resources['CPU']:g} CPUs, {resources['GPU']:g} GPUs): "
        f"{at_a_time}, in all {at_most or 'about '}{duration(3600 * cost.trial_hours / at_a_time)}",
    )
    return costs


def nodes_at_hand() -> tuple[Nodes, str]:
    """Returns `CPU` and `GPU` of each node that a run would be on, and where they are; none where nobody says it."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        import torch

        return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}], "this machine"
    if "://" in address and not address.startswith("ray://"):
        return [], f"{address} takes jobs, it does not say what the cluster has; ask `ovos-ray doctor` in a job"
    import ray

    from ovos_ray.on_ray.session import attached

    try:
        with attached(address):
            return [node["Resources"] for node in ray.nodes() if node["Alive"]], address
    except Exception as error:
        return [], first_line(error)


def print_results(
    space: SearchSpace,
    trials: Sequence[Trial],
    results: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str] | None = None,
) -> None:
    """Prints the results by configuration, the best first: mean and standard deviation over seeds.

    `results` holds `result.json` by trial name, `names` what to call some configurations instead.
    """
    from ovos_ray.evaluate.metrics import COMPARED

    rows = summarise(space, trials, results)
    if not rows:
        return
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    labels = {measure.key: measure.label for measure in COMPARED}
    heads = [labels.get(name, name.upper() if len(name) < 4 else name) for name in metrics]
    name = Column("configuration", no_wrap=True)
    table = Table(name, *heads, "seeds", "labels", "time each", title=space.name, title_justify="left")
    for row in rows:
        scores = [row.scores[name].text() if name in row.scores else "–" for name in metrics]
        seeds = f"{row.num_finished}" + (f" of {row.num_trials}" if row.num_finished < row.num_trials else "")
        if row.num_stopped:
            seeds += f" ({row.num_stopped} stopped early)"
        if row.num_taken_over:
            seeds += f" ({row.num_taken_over} taken over)"
        table.add_row(
            (names or {}).get(row.name, row.name),
            *scores,
            seeds,
            f"{row.label_percent:.1f} %",
            duration(row.seconds),
        )
    console.print(table)
    if any(row.num_finished > 1 for row in rows):
        console.print("mean ± standard deviation over seeds")


def print_failures(failures: Sequence[Failure], command: str) -> None:
    """Prints every failed trial with the reason and what to do, equal reasons together."""
    for (reason, remedy), names in _by_reason(failures).items():
        tell("failed:", ", ".join(names), style="bold red")
        console.print(f"  {reason}")
        if remedy:
            tell("  What to do:", remedy, style="bold")
    if failures:
        console.print(f"then run the same again, it makes only what is missing: {command}")


def dry_run_problems(groups: Sequence[Group], on: str | None) -> list[OvosError]:
    """Returns what a run would find out only when it starts: no GPU, no ImageNet weights; says which it will fetch.

    Args:
        groups: Configurations, pretrainings included.
        on: The GPU elsewhere that they are priced for; None: they are to run here, or on the cluster of `RAY_ADDRESS`.
    """
    from ovos_ray.run.initial import describe_initial
    from ovos_ray.run.stored_times import stored_cost

    problems: dict[str, OvosError] = {}
    said: set[str] = set()
    for config in (group.config for group in groups):
        try:
            if on is not None:
                stored_cost(config, on)
            elif "RAY_ADDRESS" not in os.environ:
                check_gpu(config.train)
            said.add(describe_initial(config))
        except OvosError as error:
            problems.setdefault(error.message, error)
    for line in sorted(said - {""}):
        console.print(line)
    return list(problems.values())


def _by_reason(ones: Sequence[Skipped | Failure]) -> dict[tuple[str, str | None], list[str]]:
    """Names what was not run, or failed, by the reason and what to do, so that each is said once."""
    by_reason: dict[tuple[str, str | None], list[str]] = {}
    for one in ones:
        by_reason.setdefault((one.reason, one.remedy), []).append(one.name)
    return by_reason
