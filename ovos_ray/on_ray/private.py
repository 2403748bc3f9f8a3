"""All that is used of Ray's private parts, for want of a public way; what is assumed of each is a test.

`pyproject.toml` admits the minor version alone with which `tests/unit/test_ray_private.py` was passed: private parts
change without notice, and some of these would fail in silence (a stopped trial taken for a failed one).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["CHATTY_LOGGERS", "draining_nodes", "inner_errors", "trial_is_being_stopped", "visit_package"]

CHATTY_LOGGERS = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell of every ignore file and connection."""


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


def inner_errors(error: BaseException) -> Iterator[BaseException]:
    """Yields the errors that one of Ray's has wrapped: those of a task, of a worker, of Ray Train's controller."""
    names = ("cause", "_base_exc", "controller_failure", "health_check_failure")
    failures = getattr(error, "worker_failures", None)
    held = [getattr(error, name, None) for name in names]
    held += list(failures.values()) if isinstance(failures, dict) else []
    yield from (inner for inner in held if isinstance(inner, BaseException))  # of a lost actor, `cause` is a text
