"""Nodes that will be taken away, and studies that are ended: a run is told, and writes down what it has computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import ray

from ovos_ray.on_ray.private import draining_nodes
from ovos_ray.repeating import repeating

__all__ = ["drained_nodes", "leaving_nodes", "tell_runs_to_end", "this_node_id", "told_to_end"]

_POLL_S = 5.0
_ENDING = "told to end"
"""The name of an actor, by which a driver tells its runs: it is there for them from when it is asked for."""


def this_node_id() -> str:
    """Returns the id of the node that this process runs on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


@contextmanager
def leaving_nodes(nodes: Collection[str]) -> Iterator[Callable[[], str]]:
    """Yields a function that says which of some nodes are being drained, or that the study is told to end.

    Empty: neither. It never waits.

    Spot nodes are drained where somebody tells Ray of the notice (docs/cluster.md); so are those that an autoscaler
    gives back.

    Args:
        nodes: Ids of the nodes that a run is on.
    """
    leaving = ""

    def look() -> None:
        nonlocal leaving
        going = sorted(draining_nodes().keys() & nodes)
        leaving = f"node {', '.join(node[:8] for node in going)} will be taken away" if going else ""
        if told_to_end():
            leaving = _ENDING

    with _looking(look):
        yield lambda: leaving


class _Word:
    """Does nothing; see `_ENDING`."""


def tell_runs_to_end() -> object:
    """Tells the runs of this driver that they will be ended, as long as what is returned is kept."""
    return ray.remote(_Word).options(num_cpus=0, name=_ENDING, get_if_exists=True).remote()


def told_to_end() -> bool:
    """Whether this process's driver has told its runs that they will be ended."""
    return _ENDING in ray.util.list_named_actors()  # of this driver, unless a namespace was asked for


@contextmanager
def drained_nodes() -> Iterator[Callable[[str], bool]]:
    """Yields a function that says whether a node was drained while the context was open; losing it is no failure."""
    drained: set[str] = set()

    def look() -> None:
        drained.update(draining_nodes())

    def was_drained(node: str) -> bool:
        with suppress(Exception):
            look()
        return node in drained

    with _looking(look):
        yield was_drained


def _looking(look: Callable[[], None]) -> AbstractContextManager[None]:
    # The head may be away; Ray ends this process if it stays so. Nobody waits for its answer at the end.
    return repeating(look, _POLL_S, "leaving nodes", forgiving=Exception, waits=False)
