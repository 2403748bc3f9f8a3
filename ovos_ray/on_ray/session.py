"""Ray as the command line uses it: a cluster to run on, and a watcher that prints what runs report."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from ovos_ray.config import ExperimentConfig
from ovos_ray.errors import ClusterError, first_line
from ovos_ray.on_ray.job_package import JobPackage
from ovos_ray.run.progress import ProgressBoard, print_record

__all__ = ["address_hook", "attached", "mention_idle_gpus", "ray_session", "watching"]

_POLL_S = 0.5
_REACH_S = 10.0


def address_hook() -> Callable[[], None]:
    """Returns what every worker process must do first: learn the cluster's address, and import from its folder last.

    Ray Train asks the state API, without an address, whether a run's controller still lives. Without `RAY_ADDRESS` the
    cluster that was started last on the machine answers. If that is another one, it knows nothing of the run, which
    then loses its workers. If it is gone, nothing answers, and the workers of a stopped run are never freed.

    Ray puts the driver's folder first on the workers' path. Unless this program lies there, it comes last, so that
    nothing in it takes the place of an installed package.
    """
    driver_folder = str(Path.cwd())

    def hook() -> None:  # sent by value: the package is not imported for it
        import os
        import sys

        import ray

        os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        for folder in {driver_folder, os.getcwd()}:
            if not os.path.isfile(os.path.join(folder, "ovos_ray", "__main__.py")):
                sys.path[:] = [*(path for path in sys.path if path != folder), folder]

    return hook


@contextmanager
def ray_session(*, verbose: bool = False, num_cpus: int | None = None, several_workers: bool = False) -> Iterator[None]:
    """Attaches to the cluster of `RAY_ADDRESS` or of the surrounding job, or starts a local one of its own.

    Workers find the modules of the current folder: by path on this machine, in the job's working directory in a job,
    and shipped along otherwise.

    Args:
        verbose: Whether Ray's own log is shown.
        num_cpus: CPUs of a local cluster; None: all of the machine.
        several_workers: Whether some run will have several, which takes two more seconds to prepare for.

    Raises:
        ClusterError: `RAY_ADDRESS` is that of a job server, or Ray does not start here.
        ResourceError: The current folder is too large to ship.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    address, here = os.environ.get("RAY_ADDRESS"), str(Path.cwd())
    hook = {"worker_process_setup_hook": address_hook()}
    if not verbose:
        # Ray's libraries log to the driver through loggers of their own.
        for name in ("ray", "ray.data", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)
    if not address:
        variables = {
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"],
            # One machine is not taken away from under a run: that saves a process a trial.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        }
        # Trials take fractions of a CPU, so that many processes start at once; Ray would warn of each few.
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
        # Those that Ray starts in advance know nothing of the runtime environment, and are never used.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # Ray Train asks the dashboard's server whether the controller of a group of workers still lives. Without it,
        # the processors of runs that were stopped early or lost with their node would never be freed.
        runtime_env = {"env_vars": variables, **hook}
        try:
            ray.init("local", num_cpus=num_cpus, include_dashboard=several_workers, runtime_env=runtime_env, **options)
        except Exception as error:  # Ray has no kind of its own for this one
            if "timed out during startup" not in str(error):
                raise
            raise ClusterError(
                "Ray's own processes did not start on this machine within 30 s",
                "it is very busy or short of memory: try again later, or sweep without Ray (--no-ray)",
            ) from error
    elif "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        ray.init(runtime_env=hook, **options)  # beside the environment of the job itself
    else:
        if address.startswith(("http://", "https://")):
            raise ClusterError(
                f"RAY_ADDRESS = {address} is where jobs are submitted, not a cluster to attach to",
                "put `ovos-ray submit --` before the verb, or unset RAY_ADDRESS to run on this machine",
            )
        excludes = [".venv", ".git", "/runs", "/shards"]
        package = JobPackage.of(Path(here), excludes)
        package.check()
        if package.left_out:
            logging.getLogger(__name__).warning("not sent to the cluster: %s", package.left_out_text())
        excludes += package.patterns()
        _attach(address, runtime_env={"working_dir": here, "excludes": excludes, **hook}, **options)
    try:
        yield
    finally:
        ray.shutdown()


def _attach(address: str, **options: Any) -> None:
    """Attaches to a running cluster.

    Raises:
        ClusterError: Nobody answers there, or lets this user in.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    try:
        if colon:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=_REACH_S).close()
        ray.init(address, **options)
    except (OSError, ValueError) as error:  # ConnectionError among them
        reason = error.__cause__ or error
        if isinstance(reason, AuthenticationError):
            raise ClusterError(
                f"the cluster {address} does not let this user in ({first_line(reason)})",
                "give the token its head was started with: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (docs/cluster.md, "
                "Authentication)",
            ) from error
        raise ClusterError(
            f"no Ray cluster answers at RAY_ADDRESS = {address} ({first_line(reason)})",
            "set it to HEAD:6379, or unset it to run on this machine",
        ) from error


@contextmanager
def attached(address: str) -> Iterator[None]:
    """Attaches to a running cluster for a look at it. Where this process uses one already, that one is looked at.

    Raises:
        ClusterError: It does not answer, or does not let this user in.
    """
    if ray.is_initialized():
        yield
        return
    _attach(address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def mention_idle_gpus(console: Console, configs: Iterable[ExperimentConfig]) -> None:
    """Says so if a cluster has GPUs that none of the runs asks for."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if gpus and not any(config.train.gpus_per_worker for config in configs):
        console.print(
            f"{gpus:g} GPUs stay idle: add train.gpus_per_worker=1 to train on them", style="yellow", highlight=False
        )


class _BoardWatcher:
    """Posts records to a board from any process of the cluster."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def __call__(self, record: dict[str, Any]) -> None:
        self._board.post.remote(record)


@contextmanager
def watching(console: Console, *, show_run: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a watcher for `RunRequest`; its records are printed, one line each, while the context is open.

    Args:
        console: Where to print.
        show_run: Whether to begin each line with the run's name (several runs at a time).
    """
    # On this node, so that it is lost with the driver and not with some worker's node.
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board = ray.remote(ProgressBoard).options(num_cpus=0, scheduling_strategy=beside).remote()
    stop = threading.Event()
    seen = 0

    def print_new() -> None:
        nonlocal seen
        try:
            records = ray.get(board.since.remote(seen))
        except ray.exceptions.RayError as error:
            console.print(f"progress cannot be shown any more ({type(error).__name__}); the runs go on")
            stop.set()
            return
        for record in records:
            seen += 1
            print_record(console, record, show_run=show_run)

    def follow() -> None:
        while not stop.wait(_POLL_S):
            print_new()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield _BoardWatcher(board)
    finally:
        lost = stop.is_set()
        stop.set()
        thread.join()
        if not lost:
            print_new()
        ray.kill(board)
