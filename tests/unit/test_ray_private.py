"""What `ovos_ray/on_ray/private.py` assumes of Ray's private parts, and that nothing else of the package uses any."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayTaskError

import ovos_ray
from ovos_ray.errors import ClusterError
from ovos_ray.on_ray import private
from ovos_ray.on_ray.session import ray_session

PACKAGE = Path(ovos_ray.__file__).parent
RAY = Path(ray.__file__).parent


def test_private_parts_of_ray_are_used_in_one_module_alone() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            names += [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
            if any(re.match(r"ray(\.\w+)*\._(?!_)", name) for name in names):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"on_ray/private.py"}


def test_only_the_minor_version_is_admitted_that_these_tests_are_passed_with() -> None:
    (pin,) = re.findall(r'"ray\[.*?\](.*?)"', (PACKAGE.parent / "pyproject.toml").read_text())
    major, minor = map(int, ray.__version__.split(".")[:2])
    assert pin == f">={major}.{minor},<{major}.{minor + 1}"


def test_every_variable_that_is_set_for_ray_is_one_that_it_reads() -> None:
    names = {
        name
        for path in (PACKAGE / "on_ray").glob("*.py")
        for name in re.findall(r'"((?:RAY|TUNE)_[A-Za-z0-9_]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(names) > 8
    source = "".join(path.read_text(encoding="utf-8", errors="replace") for path in RAY.rglob("*.py"))
    binary = (RAY / "core" / "src" / "ray" / "raylet" / "raylet").read_bytes()
    # The core reads RAY_ and the name of each of its own settings.
    unread = {name for name in names if name not in source and name.removeprefix("RAY_").encode() not in binary}
    assert not unread


@pytest.mark.parametrize("name", private.CHATTY_LOGGERS)
def test_a_logger_that_is_silenced_is_that_of_a_module(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


def test_a_stopped_trial_is_known_by_the_event_of_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train._internal import session

    assert private.trial_is_being_stopped(), "no trial runs here"
    one = session._TrainSession.__new__(session._TrainSession)
    monkeypatch.setattr(session, "_TrainSession", lambda *_, **__: one)
    session.init_session()
    try:
        one.stop_event = type("Event", (), {"is_set": lambda _: one.stopped})()
        for one.stopped in (False, True):
            assert private.trial_is_being_stopped() is one.stopped
    finally:
        session.shutdown_session()
    # Tune sets it where it ends a function's thread.
    source = Path(str(sys.modules["ray.train._internal.session"].__file__)).read_text()
    assert re.search(r"def finish\(.*?self\.stop_event\.set\(\)", source, re.DOTALL)


def test_errors_are_found_in_what_ray_wraps_them_in() -> None:
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    inner = ValueError("a wrong setting")
    for outer in (
        RayTaskError("function", "traceback", inner),
        UserExceptionWithTraceback(inner, "traceback"),
        WorkerGroupError("two died", {1: inner}),
        ControllerError(inner),
    ):
        assert inner in list(private.inner_errors(outer)), type(outer)
    assert list(private.inner_errors(inner)) == []


def test_a_cluster_that_does_not_start_is_told_of_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = re.findall(r'"(The current node timed out during startup\.)', (RAY / "_private" / "node.py").read_text())

    def busy(*args: object, **options: object) -> None:
        raise Exception(words)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", busy)
    with pytest.raises(ClusterError, match="did not start") as caught, ray_session():
        pass
    assert "busy" in str(caught.value.remedy)


def test_who_stays_on_a_node_for_ever_is_known() -> None:
    """An actor that nobody ends keeps its node from an autoscaler: one more of Ray Data's costs a node with GPUs."""
    found = {
        path.relative_to(RAY / "data").as_posix()
        for path in (RAY / "data" / "_internal").rglob("*.py")
        if 'lifetime="detached"' in path.read_text(encoding="utf-8")
    }
    of_every_execution = {
        "_internal/cluster_autoscaler/default_autoscaling_coordinator.py",
        "_internal/stats.py",
        "_internal/usage/actor.py",
    }
    of_what_is_not_used = {
        "_internal/execution/autoscaling_requester.py",  # by the autoscaler of before
        "_internal/execution/node_trackers/actor_location.py",  # pools of actors
        "_internal/execution/operators/shuffle_operators/disk_shuffle_runtime.py",
        "_internal/execution/operators/shuffle_operators/disk_shuffle_tasks.py",
        "_internal/memory_tracing.py",
        "_internal/stats_summary_actor.py",  # only with DataContext.enable_stats_summary_collection
    }
    assert found == of_every_execution | of_what_is_not_used
    source = "".join((RAY / "data" / name).read_text(encoding="utf-8") for name in of_every_execution)
    assert all(f'"{name}"' in source for name in private._SETTLED)


@pytest.mark.parametrize(
    ("nodes", "there", "started"), [(1, set(), 0), (2, set(), 1), (2, {"AutoscalingCoordinator"}, 1), (2, None, 0)]
)
def test_ray_datas_own_actors_are_started_on_the_head_where_there_is_another_place(
    nodes: int, there: set[str] | None, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = private._SETTLED if there is None else there
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * nodes + [{"Alive": False}])
    monkeypatch.setattr("ray.util.list_named_actors", lambda all_namespaces: [{"name": name} for name in named])
    asked: list[dict[str, object]] = []

    class Task:
        def options(self, **options: object) -> Task:
            asked.append(options)
            return self

        def remote(self) -> None:
            assert asked

    monkeypatch.setattr(ray, "remote", lambda function: Task())
    monkeypatch.setattr(ray, "get", lambda task, timeout: None)
    private.settle_ray_data()
    assert asked == [{"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}] * started


@pytest.mark.parametrize("usage", ["0", "1"])
def test_all_of_ray_datas_own_actors_are_started(usage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", usage)
    asked: list[str] = []
    for module, name in (
        ("ray.data._internal.cluster_autoscaler", "get_or_create_autoscaling_coordinator"),
        ("ray.data._internal.stats", "get_or_create_stats_actor"),
        ("ray.data._internal.usage.actor", "get_or_create_usage_collection_actor"),
    ):
        monkeypatch.setattr(f"{module}.{name}", lambda name=name: asked.append(name))
    private._start_ray_data_actors()
    assert len(asked) == 2 + int(usage)


def test_the_resting_scheduler_has_every_method_of_a_callback() -> None:
    from ray.data import DataContext
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    assert DataContext().custom_execution_callback_classes == []
    wanted = {name for name in vars(ExecutionCallback) if not name.startswith("_")}
    assert wanted == {name for name in vars(private.RestingScheduler) if not name.startswith("_")}


@pytest.mark.parametrize(("turn_s", "rests"), [(0.001, 42), (0.1, 0)])
def test_a_scheduler_rests_where_its_turns_do_not_wait(
    turn_s: float, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = [0.0], []
    monkeypatch.setattr(private.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(private.time, "sleep", slept.append)
    scheduler = private.RestingScheduler()
    for _ in range(50):
        now[0] += turn_s
        scheduler.on_execution_step(None)
    assert len(slept) == rests
    now[0] += 1.0  # it waited for a task: the turns that deal with what came are not held up
    scheduler.on_execution_step(None)
    for _ in range(private._MANY):
        now[0] += turn_s
        scheduler.on_execution_step(None)
    assert len(slept) == rests
