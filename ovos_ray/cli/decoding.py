"""What a dry run and `doctor` say of decoding: whether it keeps up with the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ovos_ray.cli.console import console, counted, tell
from ovos_ray.cli.studies import Nodes
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.errors import OvosError
from ovos_ray.run.estimate import Cost
from ovos_ray.run.feeding import Feeding, clip_seconds
from ovos_ray.run.stored_times import GPUS, stored_cost
from ovos_ray.study.price import Group

__all__ = ["describe", "describe_gpus", "print_decoding"]


def print_decoding(
    groups: Sequence[Group], costs: Mapping[str, Cost | None], nodes: Nodes, *, no_ray: bool = False
) -> None:
    """Decodes a few clips of each kind of data, and prints whether its fastest steps are fed.

    Args:
        groups: Configurations, pretrainings included, whose shards can be read.
        costs: Of a trial of each, by its name, where known.
        nodes: What they are to run on; none: not known.
        no_ray: Whether they run without Ray, where one thread decodes.
    """
    alike: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        alike.setdefault(_work(group.config), []).append(group)
    for members in alike.values():
        try:
            clip_s = clip_seconds(members[0].config)
        except OvosError as error:  # nothing that a dry run fails for
            tell(f"decoding for {members[0].name}: not measured:", error.listed, style="yellow")
            continue
        found = [(Feeding.of(group.config, clip_s, costs.get(group.name), nodes), group) for group in members]
        feeding, group = max(found, key=lambda pair: _urgency(pair[0]))
        if no_ray:
            feeding = dataclasses.replace(feeding, decoders=1, at_least=False)
        more = f", which needs most of {len(members)}" if len(members) > 1 else ""
        console.print(f"decoding for {group.name}{more}: {describe(feeding, nodes, no_ray=no_ray)}")


def describe(feeding: Feeding, nodes: Nodes, *, no_ray: bool = False) -> str:
    """Returns a line: what a clip costs, clips/s that a worker gets, those it takes, and what to change if too few.

    Args:
        feeding: Of a run.
        nodes: What it is to run on; none: not known.
        no_ray: Whether it runs without Ray.
    """
    decoders = ("at least " if feeding.at_least else "") + counted(feeding.decoders, "decoder")
    clips, needed = counted(feeding.clips, "clip"), feeding.decoders_needed
    line = f"a clip takes {_short(1000 * feeding.clip_s)} ms of one CPU here; "
    line += f"{decoders} beside a worker: {_short(feeding.decoded_per_s)} clips/s; "
    if feeding.step_s is None or needed is None:
        return f"{line}a worker waits for data where a step of {clips} takes less than {feeding.shortest_step_s:.2g} s"
    line += f"a step of {clips} in {feeding.step_s:.2g} s takes {_short(feeding.clips / feeding.step_s)}: "
    if needed <= feeding.decoders:
        return f"{line}fed"
    if feeding.at_least:
        return f"{line}starves unless a worker's part of its node is {needed} CPUs (train.cpus_per_worker={needed})"
    if no_ray:
        remedy = "leave out --no-ray, which decodes in one thread"
    elif feeding.chosen:
        remedy = f"data.decode_cpus={needed}, or leave that to the node"
    elif any(node.get("CPU", 0) >= needed for node in nodes):
        remedy = f"train.cpus_per_worker={needed}; fewer workers may fit then"
    else:
        remedy = "nodes with so many CPUs a worker, or shards packed with --shortest-side"
    return f"{line}starves, {needed} would do ({remedy})"


def describe_gpus(config: ExperimentConfig, folder: str) -> Iterator[str]:
    """Decodes a few clips; yields what one costs, and how many CPUs of this kind feed the GPUs with stored step times.

    Args:
        config: A run; its own shards, and whether it asks for a GPU, do not matter.
        folder: The shards.

    Raises:
        OvosError: No clip can be decoded.
    """
    alone = {"data.shards": (folder,), "data.multipliers": (), "data.frame_intervals": ()}
    config = override(config, {**alone, "train.gpus_per_worker": 1.0})
    data, clip_s = config.data, clip_seconds(config)
    yield f"a clip of {data.clip_length} frames at {data.crop_size} pixels: {_short(1000 * clip_s)} ms of one CPU here"
    for gpu in GPUS:
        feeding = Feeding.of(config, clip_s, stored_cost(config, gpu), [])
        if feeding.step_s is not None and feeding.decoders_needed is not None:
            rate, cpus = _short(feeding.clips / feeding.step_s), counted(feeding.decoders_needed, "such CPU")
            yield f"{config.name} on one {gpu.upper()}: {rate} clips/s (benchmarks/README.md), fed by {cpus} a worker"


def _work(config: ExperimentConfig) -> tuple[object, ...]:
    """Returns what the work of decoding a clip depends on above all."""
    data = config.data
    static = data.source, data.static_share, data.static_clips
    labels = config.method.needs_all_labels, config.method.compares_further_labels
    return data.shards, data.clip_length, data.crop_size, data.clip_merging, static, labels


def _urgency(feeding: Feeding) -> tuple[bool, float]:
    return feeding.step_s is not None, feeding.shortest_step_s / (feeding.step_s or 1.0)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
