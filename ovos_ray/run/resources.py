"""What a run asks of a cluster, and whether a cluster can ever give it. Pure arithmetic on numbers that Ray reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovos_ray.config import TrainConfig
from ovos_ray.errors import ResourceError

__all__ = ["can_decode_apart", "check_fits", "max_concurrent"]

_DECODING_CPUS = 1.0  # kept free for Ray Data: a cluster full of waiting workers would never decode a clip
_TRIAL_CPUS = 0.01  # what the process of a trial takes beside its workers


def check_fits(train: TrainConfig, nodes: Sequence[Mapping[str, float]], ceiling: Mapping[str, float]) -> None:
    """Checks that a cluster can ever run this configuration, with the fewest workers that it allows.

    Args:
        train: What is asked for.
        nodes: `CPU` and `GPU` of each living node.
        ceiling: What an autoscaler may grow the cluster to, by resource; empty where there is none.

    Raises:
        ResourceError: It cannot; the message shows the arithmetic.
    """
    workers = train.fewest_workers
    setting = "train.num_workers" if train.min_workers is None else "train.min_workers"
    for resource, each, reserve in (
        ("GPU", train.gpus_per_worker, 0.0),
        ("CPU", train.cpus_per_worker, _DECODING_CPUS),
    ):
        have = max(sum(node.get(resource, 0) for node in nodes), ceiling.get(resource, 0))
        need = workers * each
        if need and need + reserve > have:
            extra = " + 1 CPU for decoding" if reserve else ""
            verb = "are needed" if reserve else "are asked for"
            raise ResourceError(
                f"{workers} workers x {each:g} {resource}s{extra} = {need + reserve:g} {resource}s {verb}, "
                f"the cluster has {have:g}",
                f"lower {setting} or train.{resource.lower()}s_per_worker (fractions are fine), or add nodes",
            )
    if ceiling:
        return  # the nodes an autoscaler would add may be larger than those there are
    bundle = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    places = sum(_bundles(bundle, node) for node in nodes)
    if places < workers:
        have_each = ", ".join(f"{node.get('CPU', 0):g} CPUs + {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ResourceError(
            f"{workers} workers of {train.cpus_per_worker:g} CPUs + {train.gpus_per_worker:g} GPUs are asked "
            f"for, {places} fit on the nodes of the cluster ({have_each})",
            "a worker cannot span nodes: lower train.cpus_per_worker or train.gpus_per_worker, or add nodes",
        )


def max_concurrent(trains: Sequence[TrainConfig], resources: Mapping[str, float]) -> int:
    """Returns how many runs fit at a time if each is as large as the largest: all CPUs but one, and all GPUs.

    Args:
        trains: The runs; sizes may differ.
        resources: Of the cluster, such as `ray.cluster_resources()`.
    """
    cpus = max(train.num_workers * train.cpus_per_worker for train in trains) + _TRIAL_CPUS
    gpus = max(train.num_workers * train.gpus_per_worker for train in trains)
    by_cpu = math.floor((resources.get("CPU", 0) - _DECODING_CPUS) / cpus)
    by_gpu = math.floor(resources.get("GPU", 0) / gpus) if gpus else by_cpu
    return max(1, min(by_cpu, by_gpu))


def can_decode_apart(nodes: Iterable[Mapping[str, float]], groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the running workers leave a CPU of the cluster to the tasks that decode.

    Elastic workers take all that fits, and after the death of a node Ray squeezes lost workers into what is left.

    Args:
        nodes: `CPU` of each living node.
        groups: The cluster's placement groups, such as the values of `ray.util.placement_group_table()`.
    """
    held: float = sum(
        bundle.get("CPU", 0) for group in groups if group["state"] == "CREATED" for bundle in group["bundles"].values()
    )
    return bool(sum(node.get("CPU", 0) for node in nodes) - held >= _DECODING_CPUS)


def _bundles(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many workers of this size fit on one node."""
    counts = [math.floor(node.get(name, 0) / size + 1e-9) for name, size in bundle.items() if size]
    return min(counts, default=1_000_000)
