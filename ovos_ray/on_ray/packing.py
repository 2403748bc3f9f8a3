"""The parts of a dataset packed by tasks of a cluster, whose nodes see the dataset and the place of the shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from ovos_ray.errors import ResourceError
from ovos_ray.on_ray.causes import own_cause
from ovos_ray.on_ray.session import ray_session
from ovos_ray.packing.parts import Part, make_part

__all__ = ["on_cluster"]

_RETRIES = 3


def on_cluster(parts: Sequence[Part], num_workers: int, *, verbose: bool = False) -> Iterator[tuple[Part, list[str]]]:
    """Makes parts in Ray tasks of one CPU each, so many at a time; yields each as it is done.

    A task that is lost with its node is started again. Bytes do not pass through the object store: a task reads the
    dataset and writes its shard file.

    Raises:
        OvosError: What a task raised.
        ResourceError: A task was lost again and again.
    """
    with ray_session(verbose=verbose):
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
