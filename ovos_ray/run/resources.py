"""What a run asks of a cluster, and whether a cluster can give it. Pure arithmetic on numbers that Ray reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.errors import ResourceError

__all__ = ["check_fits", "check_gpu", "decoders_of_worker", "max_concurrent", "workers_that_fit"]


def check_fits(train: TrainConfig, nodes: Sequence[Mapping[str, float]]) -> None:
    """Checks that a cluster as it is can run this configuration, with the fewest workers that it allows.

    `nodes` are `CPU` and `GPU` of each living one.

    Raises:
        ResourceError: It cannot; the message shows the arithmetic.
    """
    workers = train.fewest_workers
    setting = "train.num_workers" if train.min_workers is None else "train.min_workers"
    for resource, each in (("GPU", train.gpus_per_worker), ("CPU", train.cpus_per_worker)):
        have = sum(node.get(resource, 0) for node in nodes)
        need = workers * each
        if need > have:
            raise ResourceError(
                f"{workers} workers x {each:g} {resource}s = {need:g} {resource}s are asked for, the cluster has "
                f"{have:g}",
                f"lower {setting} or train.{resource.lower()}s_per_worker (fractions are fine), or add nodes",
            )
    places = sum(workers_that_fit(train, node) for node in nodes)
    if places < workers:
        have_each = ", ".join(f"{node.get('CPU', 0):g} CPUs + {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ResourceError(
            f"{workers} workers of {train.cpus_per_worker:g} CPUs + {train.gpus_per_worker:g} GPUs are asked "
            f"for, {places} fit on the nodes of the cluster ({have_each})",
            "a worker cannot span nodes: lower train.cpus_per_worker or train.gpus_per_worker, or add nodes",
        )


def check_gpu(train: TrainConfig) -> None:
    """Checks that this machine has a GPU where the configuration asks for one.

    Raises:
        ResourceError: It has none.
    """
    import torch

    if train.gpus_per_worker and not torch.cuda.is_available():
        raise ResourceError(
            f"train.gpus_per_worker={train.gpus_per_worker:g}, and this machine has no GPU that torch can use",
            "set train.gpus_per_worker=0, or run it where one is; a dry run prices it for one elsewhere with --on h100",
        )


def max_concurrent(trains: Sequence[TrainConfig], resources: Mapping[str, float]) -> int:
    """Returns how many runs fit at a time if each is as large as the largest.

    `resources` are the cluster's, such as `ray.cluster_resources()`.
    """
    cpus = max(train.num_workers * train.cpus_per_worker for train in trains)
    gpus = max(train.num_workers * train.gpus_per_worker for train in trains)
    by_gpu = math.floor(resources.get("GPU", 0) / gpus + 1e-9) if gpus else None
    by_cpu = math.floor(resources.get("CPU", 0) / cpus + 1e-9) if cpus else by_gpu
    return max(1, min(by for by in (by_cpu, by_gpu, 1_000_000) if by is not None))


def decoders_of_worker(config: ExperimentConfig, node: Mapping[str, float]) -> int:
    """Returns how many clips a worker decodes at a time: on its even part of its node's CPUs, on one at least.

    Where GPUs run out before CPUs, a worker decodes on the CPUs that no other one can use. `data.decode_cpus` takes the
    place of this rule.

    Args:
        config: Of its run.
        node: `CPU` and `GPU` of its node.
    """
    if config.data.decode_cpus is not None:
        return config.data.decode_cpus
    train = config.train
    return max(1, math.floor(node.get("CPU", 0) / max(1, workers_that_fit(train, node)) + 1e-9))


def workers_that_fit(train: TrainConfig, node: Mapping[str, float]) -> int:
    """Returns how many workers of a run fit on one node."""
    bundle = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    counts = [math.floor(node.get(name, 0) / size + 1e-9) for name, size in bundle.items() if size]
    return min(counts, default=1_000_000)
