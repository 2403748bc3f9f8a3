"""Whether a cluster has room for a run, now or once it has grown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ResourceError
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import check_fits
from ovos_ray.run.resume import marked_step

__all__ = [
    "await_nodes",
    "await_room",
    "check_room",
    "head_node",
    "is_free",
    "patience_s",
    "processors",
    "say_what_is_held",
    "this_node",
]

_HEAD = "node:__internal_head__"
"""What the head alone has, by Ray's documentation."""
_POLL_S = 2.0


def processors(config: ExperimentConfig) -> dict[str, float]:
    """Returns the `CPU` and `GPU` that each worker of a run holds."""
    train = config.train
    return {"CPU": train.cpus_per_worker} | ({"GPU": train.gpus_per_worker} if train.gpus_per_worker else {})


def patience_s(minutes: float) -> float:
    """Returns how long to wait for nodes: not at all on a cluster that this process has started on this machine."""
    return 60 * minutes if "RAY_ADDRESS" in os.environ else 0.0


def await_room(config: ExperimentConfig, *, wait_s: float = 0.0, say: Callable[[str], None] | None = None) -> None:
    """Checks that the cluster can run this configuration; where it may grow, asks it to and waits.

    Ray without an autoscaler and Ray whose autoscaler may start more nodes look the same from within (what it may grow
    to is reported on Anyscale only): too small is not too small for ever.

    Args:
        config: Of the run.
        wait_s: How long to wait for nodes, in seconds; 0 for a cluster that does not grow.
        say: Told once what is waited for.

    Raises:
        ResourceError: There is no room, or was none in that time; the message shows the arithmetic.
    """
    asked = [processors(config)] * config.train.fewest_workers
    await_nodes(lambda: check_room(config), asked, wait_s=wait_s, say=say)


def await_nodes(
    check: Callable[[], None],
    bundles: list[dict[str, float]],
    *,
    wait_s: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> None:
    """Checks that a cluster has something; where it may grow, asks it to and waits; see `await_room`.

    Args:
        check: Raises a `ResourceError` as long as it has not.
        bundles: What an autoscaler is asked for.
        wait_s: See `await_room`.
        say: See `await_room`.

    Raises:
        ResourceError: What `check` raises at the end.
    """
    deadline, asked = time.monotonic() + wait_s, False
    try:
        while True:
            try:
                check()
            except ResourceError as error:
                if time.monotonic() >= deadline:
                    raise
                if not asked and say is not None:
                    say(f"waiting up to {wait_s / 60:g} min for nodes: {error.message}")
            else:
                return
            # Again and again: a cluster keeps one request, the last, and Ray Train makes some for runs that go on.
            _ask_for(bundles)
            asked = True
            time.sleep(_POLL_S)
    finally:
        if asked:
            _ask_for([])  # what was asked for last would be kept for ever


def _ask_for(bundles: list[dict[str, float]]) -> None:
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def check_room(config: ExperimentConfig) -> None:
    """Checks that the cluster has the nodes for this configuration now.

    Raises:
        ResourceError: It has not; the message shows the arithmetic.
    """
    check_fits(config.train, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def is_free(config: ExperimentConfig) -> bool:
    """Whether nobody holds, on the nodes that live, what the workers of a run need."""
    free, workers = ray.available_resources(), config.train.fewest_workers
    return all(free.get(name, 0) >= workers * number for name, number in processors(config).items())


def say_what_is_held(request: RunRequest) -> bool:
    """Tells the watcher of a run that is about to start what it has to wait for; returns whether there is something."""
    config = request.config
    if is_free(config):
        return False
    asked = " and ".join(f"{number:g} {name}" for name, number in processors(config).items())
    workers = config.train.fewest_workers
    each = "" if workers == 1 else f" for each of {workers} workers"
    request.post(marked_step(config), event=f"waiting until {asked}{each} are free")
    return True


def head_node() -> Mapping[str, Any]:
    """Returns what Ray says of the cluster's head: its `NodeID`, its `Resources`; nothing where it is not named."""
    return next((node for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"]), {})


def this_node() -> dict[str, float]:
    """Returns `CPU`, `GPU` and so on of the node that this process runs on."""
    here = ray.get_runtime_context().get_node_id()
    return next((dict(node["Resources"]) for node in ray.nodes() if node["NodeID"] == here), {})
