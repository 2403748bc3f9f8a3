"""All that is used of Ray's private parts, where there is no public way.

Private parts change without notice, and some would then fail in silence: a stopped trial would be taken for a failed
one. So `tests/unit/test_ray_private.py` tests what is assumed of each, and `pyproject.toml` admits only the minor
version of Ray with which it passed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "CHATTY_LOGGERS",
    "RestingScheduler",
    "draining_nodes",
    "inner_errors",
    "settle_ray_data",
    "trial_is_being_stopped",
    "visit_package",
]

CHATTY_LOGGERS = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell of every ignore file and connection."""

_QUICK_S = 0.03
_MANY = 8
_REST_S = 0.02
_SETTLED = {"datasets_stats_actor", "AutoscalingCoordinator"}
_SETTLE_S = 60.0


def visit_package(folder: Path, excludes: Sequence[str], visit: Callable[[Path], None]) -> None:
    """Visits what Ray would pack of a working directory, by its own ignore files.

    Args:
        folder: The working directory, absolute.
        excludes: More patterns, as in a runtime environment's `excludes`.
        visit: Called with every folder and file.
    """
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
    from ray._private.runtime_env import packaging

    quiet = logging.getLogger(f"{__name__}.ignored")
    quiet.setLevel(logging.WARNING)
    packaging._dir_travel(
        folder,
        [packaging._get_excludes(folder, list(excludes))],
        visit,
        include_gitignore=os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1",
        logger=quiet,
    )


def trial_is_being_stopped() -> bool:
    """Whether Tune is ending early the trial that runs in this process."""
    from ray.train._internal.session import get_session

    session = get_session()
    return session is None or session.stop_event.is_set()  # None: Tune has closed it already


def draining_nodes() -> dict[str, int]:
    """Returns the nodes that will be taken away, by id: when, in milliseconds since 1970; 0: that is not known.

    `ray.train.get_preemption_info` tells workers of Ray Train alone, by a process more for each group of them, and
    nothing in local mode.
    """
    from ray._private.state import state

    return dict(state.get_draining_nodes())


def settle_ray_data() -> None:
    """Starts the actors of which Ray Data has one a cluster, on the cluster's head, unless they live already.

    Otherwise the first process that uses Ray Data starts them on its own node, where they stay. They hold nothing, but
    a node with an actor is never idle: no autoscaler would take away the node, GPUs and all, of the first trial.
    """
    import ray

    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return  # there is no other place
    if {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)} >= _SETTLED:
        return
    on_head = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    try:
        ray.get(ray.remote(_start_ray_data_actors).options(**on_head).remote(), timeout=_SETTLE_S)
    except ray.exceptions.RayError as error:
        logging.getLogger(__name__).warning("an autoscaler may keep the first trial's node for ever: %s", error)


def _start_ray_data_actors() -> None:
    from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
    from ray.data._internal.stats import get_or_create_stats_actor
    from ray.data._internal.usage.actor import get_or_create_usage_collection_actor
    from ray.data._internal.usage.collector import usage_collection_disabled

    actors = [get_or_create_stats_actor, get_or_create_autoscaling_coordinator]
    for start in actors if usage_collection_disabled() else [*actors, get_or_create_usage_collection_actor]:
        start()


def inner_errors(error: BaseException) -> Iterator[BaseException]:
    """Yields the errors that one of Ray's has wrapped: those of a task, of a worker, of Ray Train's controller."""
    names = ("cause", "_base_exc", "controller_failure", "health_check_failure")
    failures = getattr(error, "worker_failures", None)
    held = [getattr(error, name, None) for name in names]
    held += list(failures.values()) if isinstance(failures, dict) else []
    yield from (inner for inner in held if isinstance(inner, BaseException))  # of a lost actor, `cause` is a text


class RestingScheduler:
    """An execution callback for Ray Data that lets its scheduling loop rest where there is nothing to do.

    As long as it does not know what memory the cluster has, in the first second, and whenever enough is decoded ahead,
    the loop turns a thousand times a second, and takes a fifth of the interpreter's time from the step beside it.

    It has the methods of Ray's own `ExecutionCallback` and not its base, whose import takes half a second.
    """

    def __init__(self) -> None:
        self._ended, self._num_quick = time.monotonic(), 0

    def on_execution_step(self, executor: Any) -> None:
        """Rests after many turns that did not wait for a task; those that deal with the blocks of one are few."""
        quick = time.monotonic() - self._ended < _QUICK_S
        self._num_quick = self._num_quick + 1 if quick else 0
        if self._num_quick > _MANY:
            time.sleep(_REST_S)
        self._ended = time.monotonic()

    def before_execution_starts(self, executor: Any) -> None:
        """Does nothing."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Does nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Does nothing."""
