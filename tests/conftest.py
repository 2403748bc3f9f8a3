"""Fixtures that every test file may use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same cases every time: what a change breaks is not a matter of luck. The nightly searches among others.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
# Two cores are shared by a cluster's processes; more threads than cores make OpenMP crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# What tests remember of tracking servers is none of this user's choices.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="ovos-tests-")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Ray lets its workers give way to everything else; here the other process of tests would hold up the longer one.
os.environ.setdefault("RAY_worker_niceness", "0")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves nightly tests out unless they are asked for; what needs Ray comes first, in one of two processes.

    Tests with clusters of their own come before those that share one, so that there is never more than one cluster.
    """
    if "nightly" not in config.option.markexpr:
        left_out = {item for item in items if item.get_closest_marker("nightly")}
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("ray") is None:
            return 2
        return 1 if "_cluster" in item.fixturenames or "demo" in item.name else 0  # type: ignore[attr-defined]

    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives all that needs Ray to one process, and the rest, file by file, to whichever is free.

    Marks of groups would say the same, but xdist 3.8 does not see them under pytest 9.2 and deals out tests singly.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneForRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(("tests/on_ray/", "tests/browser/")) else nodeid.split("::")[0]

    return OneForRay(config, log)


@pytest.fixture(scope="module", autouse=True)
def _memory_is_given_back() -> Iterator[None]:
    """What the networks of a file took goes back to the machine, which would else hold the largest of all for long."""
    yield
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """The folder of reference data that is not part of the project; tests that need it skip without it."""
    root = Path(os.environ.get("OVOS_SHARED", REPOSITORY.parent / "shared"))
    if not (root / "golden").is_dir():
        pytest.skip(f"no reference data at {root} (set OVOS_SHARED)")
    return root


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six short synthetic videos with one label each, for all tests to read; who damages some makes a copy."""
    from runs import make_shards

    folder = make_shards(tmp_path_factory.mktemp("shards"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "a test has changed what all read"


@pytest.fixture
def davis(tmp_path: Path) -> Any:
    """A small dataset in the layout of DAVIS 2017, at `tmp_path / "davis"`; v1 shows objects from frame 2 of 6 on."""
    from davis_folder import make_davis

    from ovos_ray.data.folders.open import open_dataset

    return open_dataset(make_davis(tmp_path / "davis"), "davis2017")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store of MLflow for all tests: its first use costs seconds of migrations."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="session")
def client(store: str) -> Any:
    """MLflow's own client of that store."""
    from mlflow import MlflowClient

    return MlflowClient(store)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinks send soon and give up on a silent server soon."""
    from ovos_ray.track import sink

    monkeypatch.setattr(sink, "_SEND_INTERVAL_S", 0.1)
    monkeypatch.setattr(sink, "_MAX_BACKOFF_S", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 128 KiB, which only root may mount; tests that need it skip for others."""
    folder = Path(tempfile.mkdtemp(prefix="ovos-small-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        folder.rmdir()
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def ray_cluster(_cluster: None) -> None:
    """The session's Ray cluster; without it, Ray would quietly start another one, with other settings."""
    import ray

    assert ray.is_initialized(), "an earlier test has shut the session's cluster down"


@pytest.fixture(scope="session")
def _cluster() -> Iterator[None]:
    """One local Ray cluster for the whole session, never somebody else's."""
    import ray

    from ovos_ray.on_ray.session import address_hook

    # Workers import the tests' modules and, as in a checkout that is not installed, the repository's.
    own = [str(REPOSITORY / "tests" / name) for name in ("support", "on_ray")]
    paths = os.pathsep.join(filter(None, [*own, str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": paths, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "OMP_NUM_THREADS": "1"}
    variables["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # as `ray_session`: a process less for every run
    # With the dashboard's server, without which Ray Train does not clean up after runs that were stopped.
    runtime_env = {"env_vars": variables, "worker_process_setup_hook": address_hook()}
    ray.init("local", num_cpus=2, include_dashboard=True, log_to_driver=False, runtime_env=runtime_env)
    yield
    ray.shutdown()
