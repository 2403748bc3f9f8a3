"""Predicted videos are scored in tasks on the predicting process's node, while it predicts the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ovos_ray.on_ray.leaving import this_node_id

__all__ = ["ScoringTasks"]

P = ParamSpec("P")
T = TypeVar("T")


class ScoringTasks(ThreadPoolExecutor):
    """Calls functions in Ray tasks on this node, a few at a time; a task whose process is lost is started again.

    They ask for no CPU, as decoding does: while a worker predicts, nobody decodes for it.

    Args:
        at_a_time: How many.
    """

    def __init__(self, at_a_time: int) -> None:
        super().__init__(at_a_time, thread_name_prefix="scoring")
        here = NodeAffinitySchedulingStrategy(this_node_id(), soft=False)  # the masks are on its disk
        self._options = {"num_cpus": 0, "scheduling_strategy": here, "name": "score"}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `concurrent.futures.Executor`; arguments and result are pickled."""
        task = ray.remote(fn).options(**self._options)
        return super().submit(lambda: ray.get(task.remote(*args, **kwargs)))
