"""One run on Ray: in one process, or on a group of workers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ovos_ray.on_ray.one_process import train_in_task
from ovos_ray.on_ray.private import settle_ray_data
from ovos_ray.on_ray.room import await_room
from ovos_ray.on_ray.stream import load_plan, stream_spec
from ovos_ray.on_ray.workers import train_on_workers
from ovos_ray.run.prepare import RunResult, make_run
from ovos_ray.run.request import RunRequest

__all__ = ["fit"]


def fit(request: RunRequest, *, callbacks: Sequence[Any] = (), wait_s: float | None = 0.0) -> RunResult:
    """Trains until the last step, or says why not. The same request again continues where the last one stopped.

    Args:
        request: The run. Ray must be initialised.
        callbacks: More `UserCallback`s for a run of several workers, such as Tune's.
        wait_s: How long to wait for nodes that are not there yet; see `room.await_room`. None: without end, as a trial
            does whose nodes were there when its study began.

    Raises:
        OvosError: The run cannot be made as configured; workers' own errors arrive unwrapped.
    """
    say = functools.partial(_say, request)
    room = None if wait_s is None else functools.partial(await_room, wait_s=wait_s, say=say)
    return make_run(request, functools.partial(_execute, callbacks=callbacks), check_room=room)


def _say(request: RunRequest, event: str) -> None:
    request.post(0, event=event)


def _execute(request: RunRequest, *, callbacks: Sequence[Any]) -> None:
    # What is wrong with the data is found here, before anything is started.
    load_plan(stream_spec(request.config)).clips(0, 0, request.config.train.num_workers)
    settle_ray_data()
    if request.config.train.num_workers == 1:
        train_in_task(request)
    else:
        train_on_workers(request, callbacks=callbacks)
