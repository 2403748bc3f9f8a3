"""The parts of a dataset packed by tasks of a cluster, whose nodes see the dataset and the place of the shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from ovos_ray.errors import ResourceError
from ovos_ray.on_ray.causes import own_cause
from ovos_ray.on_ray.room import await_nodes
from ovos_ray.on_ray.session import ray_session
from ovos_ray.packing.parts import Part, make_part

__all__ = ["on_cluster"]

_RETRIES = 3


def on_cluster(
    parts: Sequence[Part],
    num_workers: int,
    *,
    wait_s: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> Iterator[tuple[Part, list[str]]]:
    """Makes parts in Ray tasks of one CPU each, so many at a time; yields each as it is done.

    A task that is lost with its node is started again. Bytes do not pass through the object store: a task reads the
    dataset and writes its shard file.

    Args:
        parts: What is to be made.
        num_workers: Tasks at a time.
        wait_s: How long to wait for the first node; see `room.await_room`.
        say: Told what is waited for.

    Raises:
        OvosError: What a task raised.
        ResourceError: A task was lost again and again, or no node came.
    """
    with ray_session():
        if parts:
            await_nodes(_check_cpus, [{"CPU": 1.0}], wait_s=wait_s, say=say)
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(make_part)
        rest = iter(parts)
        waiting = {task.remote(part): part for part in itertools.islice(rest, num_workers)}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                yield waiting.pop(done), ray.get(done)
            except RayError as error:
                if isinstance(error, RayTaskError):
                    raise (own_cause(error) or error) from error
                raise ResourceError(
                    f"a packing task was lost {_RETRIES + 1} times ({error})"[:500],
                    "give the same command again, perhaps with fewer --num-workers: finished files are kept",
                ) from error
            waiting.update((task.remote(part), part) for part in itertools.islice(rest, 1))


def _check_cpus() -> None:
    if not any(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes()):
        raise ResourceError(
            "packing takes one CPU a task, no node of the cluster has one",
            "add nodes, wait longer for them with --wait-for-nodes=MINUTES, or pack here: unset RAY_ADDRESS",
        )
