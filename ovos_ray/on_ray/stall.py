"""Waiting for data with a time limit; the error at its end says what the cluster was doing."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import ray

from ovos_ray.errors import ResourceError

__all__ = ["cluster_state", "patiently"]

T = TypeVar("T")
_LOOK_S = 20.0


def patiently(items: Iterator[T], patience_s: float, waited_for: Callable[[int], str]) -> Generator[T]:
    """Yields the items of an iterator, each of which must come within a time limit.

    Args:
        items: Asked for each item in a thread of its own, which can be given up.
        patience_s: Seconds to wait for each; 0: for ever.
        waited_for: Names the item of a number, from 0, for the error.

    Raises:
        ResourceError: One did not come; says what the cluster was doing.
    """
    if not patience_s:
        yield from items
        return
    for number in itertools.count():
        try:
            yield _within(lambda: next(items), patience_s)
        except StopIteration:
            return
        except queue.Empty:
            raise ResourceError(
                f"{waited_for(number)} did not come within {patience_s:g} s; {cluster_state()}",
                "see what holds the cluster's CPUs (`ray status`, `ray list tasks`) and whether the shards can be read "
                "(`ovos-ray doctor --shards …`), then give the command again: it goes on from the last checkpoint; "
                "train.stall_timeout_s=0 waits for ever",
            ) from None


def cluster_state() -> str:
    """Returns, in words, the nodes, what of their resources is free, and the tasks that wait, as far as Ray answers."""
    try:
        return _within(_look, _LOOK_S)
    except Exception as error:
        return f"the cluster does not answer ({type(error).__name__})"


def _look() -> str:
    have, free = ray.cluster_resources(), ray.available_resources()
    nodes = ray.nodes()
    alive = sum(bool(node["Alive"]) for node in nodes)
    parts = [
        f"{free.get(name, 0):.4g} of {have[name]:.4g} {name}s are free" for name in ("CPU", "GPU") if have.get(name)
    ]
    if store := have.get("object_store_memory"):
        parts.append(f"{100 * free.get('object_store_memory', 0) / store:.0f} % of the object store")
    return f"{alive} of {len(nodes)} nodes live; {', '.join(parts)}{_tasks()}"


def _tasks() -> str:
    """Returns the tasks that are not running, by name and state, where a dashboard's server counts them."""
    from ray.util.state import summarize_tasks

    try:
        names = summarize_tasks(timeout=10, raise_on_missing_output=False)["cluster"]["summary"]
    except Exception:
        return ""
    waiting = [
        f"{count} {one['func_or_class_name']} {state.lower().replace('_', ' ')}"
        for one in names.values()
        for state, count in one["state_counts"].items()
        if state not in ("FINISHED", "FAILED", "RUNNING")
    ]
    return f"; tasks that wait: {', '.join(waiting[:5]) or 'none'}"


def _within(make: Callable[[], T], seconds: float) -> T:
    """Returns what a function returns in time.

    Raises:
        queue.Empty: It did not return; its thread goes on, and ends with the process.
    """
    box: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            box.put((make(), None))
        except BaseException as error:
            box.put((None, error))

    threading.Thread(target=run, name="asked", daemon=True).start()
    value, error = box.get(timeout=seconds)
    if error is not None:
        raise error
    made: T = value
    return made
