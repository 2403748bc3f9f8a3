"""How a study follows a cluster that grows and shrinks, how a wait ends, and what is told of nodes that leave."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import wait_for
from ray.exceptions import ActorDiedError, RayActorError
from ray.train import UserCallback
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher
from runs import config_of

from ovos_ray.cli.options import minutes
from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.errors import ConfigError, ResourceError, StorageError
from ovos_ray.on_ray import concurrency, leaving, packing, room, stall, workers
from ovos_ray.on_ray.trial import resources_of, run_trial
from ovos_ray.packing.parts import Part
from ovos_ray.run.failure import noted_failure
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder


class Endless(Searcher):  # type: ignore[misc]  # ray is untyped
    """Suggests for ever."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("limited", [False, True])
def test_trials_at_a_time_follow_the_cluster(limited: bool, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"CPU": 4.0, "GPU": 1.0}
    monkeypatch.setattr(concurrency.ray, "cluster_resources", lambda: cluster)
    monkeypatch.setattr(concurrency, "_LOOK_S", 0.0)
    trains = [TrainConfig(num_workers=2, cpus_per_worker=1.0, gpus_per_worker=0.5)]
    search = ConcurrencyLimiter(Endless(), 9) if limited else BasicVariantGenerator(max_concurrent=9)
    told: list[str] = []
    callback = concurrency.AsManyAsFit(search, trains, told.append, more)
    assert search.max_concurrent == 1 + more
    for gpus, expected in ((1, 1), (3, 3), (2, 2), (0, 1)):
        cluster |= {"GPU": float(gpus), "CPU": 8.0}
        callback.on_step_begin(0, [])
        assert search.max_concurrent == expected + more
        if limited:  # what Tune asks for is what is handed out
            handed = [search.suggest(f"{gpus} {n}") for n in range(9)]
            assert sum(one is not None for one in handed) == expected + more
            search.live_trials.clear()
    assert told == [
        f"{n} trials at a time from now on, as many as fit ({m} before)" for m, n in ((1, 3), (3, 2), (2, 1))
    ]


def test_nodes_are_asked_for_as_long_as_they_are_waited_for_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = list[list[dict[str, float]]](), list[str]()
    nodes = iter([[], [], [{"CPU": 4.0}], [{"CPU": 4.0}] * 2])
    monkeypatch.setattr(room.ray, "nodes", lambda: [{"Alive": True, "Resources": one} for one in next(nodes)])
    monkeypatch.setattr(room, "_POLL_S", 0.0)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    config = ExperimentConfig(train=TrainConfig(num_workers=2, cpus_per_worker=3.0))
    room.await_room(config, wait_s=60.0, say=told.append)
    assert asked == [[{"CPU": 3.0}] * 2] * 3 + [[]]
    assert [line.partition(":")[0] for line in told] == ["waiting up to 1 min for nodes"]
    monkeypatch.setattr(room.ray, "nodes", list)
    with pytest.raises(ResourceError, match="the cluster has 0"):
        room.await_room(config, say=told.append)
    assert len(asked) == 4
    assert len(told) == 1


def test_packing_waits_for_its_first_node_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = list[list[dict[str, float]]](), list[str]()
    part = Part(0, "frames-00000.parquet", b"", {}, (), "", "", 1)
    monkeypatch.setattr(packing, "ray_session", nullcontext)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(room, "_POLL_S", 0.01)
    monkeypatch.setattr(room.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 0.0}}])
    with pytest.raises(ResourceError, match="no node of the cluster has one") as error:
        next(packing.on_cluster([part], 2, wait_s=0.06, say=told.append))
    assert "--wait-for-nodes" in (error.value.remedy or "")
    assert told == ["waiting up to 0.001 min for nodes: packing takes one CPU a task, no node of the cluster has one"]
    assert asked[0] == [{"CPU": 1.0}]
    assert asked[-1] == []
    assert list(packing.on_cluster([], 2)) == [], "nothing is to be made"


def test_a_study_in_which_no_trial_runs_says_so_once_a_wait(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, told = [0.0], list[str]()
    monkeypatch.setattr("ovos_ray.on_ray.concurrency.time.monotonic", lambda: now[0])
    monkeypatch.setattr(concurrency, "cluster_state", lambda: "1 of 2 nodes live")
    monkeypatch.setattr(concurrency, "_LOOK_S", 0.0)
    requests = {name: request(shards, tmp_path, **{"train.num_workers": n}) for name, n in (("one", 1), ("two", 2))}
    callback = concurrency.SaysWhenNoneRuns(requests, told.append)

    def step(at_s: float, states: str, trial: str = "one") -> None:
        now[0] = at_s
        callback.on_step_begin(0, [SimpleNamespace(status=s, config={"trial": trial}) for s in states.split()])

    for at_s, states in (
        (0, "PENDING"),
        (59, "PENDING PENDING"),
        (61, "PENDING PENDING TERMINATED"),
        (200, "PENDING PENDING"),
        (201, "RUNNING PENDING"),
        (202, "PENDING"),
        (263, "TERMINATED"),
        (300, "PENDING"),
        (361, "PENDING"),
    ):
        step(at_s, states)
    assert told == [f"waiting for room for {n} trials, of which none runs: 1 of 2 nodes live" for n in (2, 1)]

    groups, free = dict[str, dict[str, str]](), {"CPU": 0.5}
    monkeypatch.setattr(room.ray, "available_resources", lambda: free)
    monkeypatch.setattr("ovos_ray.on_ray.workers.ray.util.placement_group_table", lambda: groups)
    folder = RunFolder.of(requests["two"].config)
    step(399, "RUNNING")
    step(400, "RUNNING PENDING", "two")
    step(461, "RUNNING PENDING", "two")
    assert told[2:] == ["waiting for room for 2 trials, of which none runs: 1 of 2 nodes live"], "its workers wait"
    folder.storage.write(b"a1", "placement_group")
    groups["a1"] = {"state": "CREATED"}
    step(500, "RUNNING PENDING", "two")
    groups["a1"] = {"state": "RESCHEDULING"}
    step(600, "RUNNING PENDING", "two")
    assert len(told) == 3
    step(661, "RUNNING PENDING", "two")
    assert len(told) == 4, "their node was lost"
    free["CPU"] = 1.0
    step(700, "RUNNING PENDING", "two")
    step(800, "RUNNING PENDING", "two")
    free["CPU"] = 0.5
    step(801, "RUNNING PENDING", "two")
    assert len(told) == 4, "they were about to start"

    def out_of_reach(*name: str) -> bool:
        raise StorageError("the bucket does not answer")

    monkeypatch.setattr("ovos_ray.storage.Storage.exists", out_of_reach)
    step(1000, "RUNNING PENDING", "two")  # is no end of a study


def slow(*waits_s: float) -> Iterator[int]:
    for number, wait_s in enumerate(waits_s):
        time.sleep(wait_s)
        yield number


def test_a_batch_that_does_not_come_is_an_error_that_says_what_the_cluster_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stall.ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0, "object_store_memory": 2e9})
    monkeypatch.setattr(stall.ray, "available_resources", lambda: {"CPU": 0.5, "object_store_memory": 1e8})
    monkeypatch.setattr(stall.ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    monkeypatch.setattr(stall, "_tasks", lambda: "; tasks that wait: 3 _decode_block pending node assignment")
    items = stall.patiently(slow(0, 0, 30), 0.3, lambda number: f"the batch of step {7 + number}")
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(
        ResourceError, match=r"batch of step 9 did not come within 0.3 s; 1 of 2 nodes live; 0.5 of 8 "
    ) as caught:
        next(items)
    assert "0 of 1 GPUs are free, 5 % of the object store; tasks that wait: 3 _decode_block" in str(caught.value)
    assert "train.stall_timeout_s=0" in (caught.value.remedy or "")


@pytest.mark.parametrize("patience_s", [0.0, 30.0])
def test_items_errors_and_the_end_come_as_they_are(patience_s: float) -> None:
    assert list(stall.patiently(slow(0, 0, 0), patience_s, str)) == [0, 1, 2]

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("a bad row")

    items = stall.patiently(broken(), patience_s, str)
    assert next(items) == 1
    with pytest.raises(ValueError, match="a bad row"):
        next(items)


def test_a_cluster_that_does_not_answer_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "_LOOK_S", 0.1)
    monkeypatch.setattr(stall.ray, "cluster_resources", lambda: time.sleep(30))
    assert stall.cluster_state() == "the cluster does not answer (Empty)"


def test_nodes_that_leave_are_told_and_their_loss_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    draining: dict[str, int] = {}
    asked = [0]

    def look() -> dict[str, int]:
        asked[0] += 1
        if asked[0] == 1:
            raise ConnectionError("the head is away for a moment")
        return draining

    monkeypatch.setattr(leaving, "_POLL_S", 0.01)
    monkeypatch.setattr(leaving, "draining_nodes", look)
    actors: list[str] = ["another"]
    monkeypatch.setattr(leaving.ray.util, "list_named_actors", lambda: actors)
    with leaving.leaving_nodes(["a" * 56]) as warning, leaving.drained_nodes() as was_drained:
        draining["b" * 56] = 0
        before = asked[0]
        wait_for(lambda: asked[0] > before + 4, 10)
        assert warning() == "", "another node's"
        assert was_drained("b" * 56)
        assert not was_drained("a" * 56)
        draining["a" * 56] = 0
        wait_for(lambda: warning() != "", 10)
        assert warning() == "node aaaaaaaa will be taken away"
        draining.clear()
        wait_for(lambda: warning() == "", 10)
        assert was_drained("a" * 56), "gone by now"
        actors.append("told to end")
        wait_for(lambda: warning() != "", 10)
        assert warning() == "told to end"


def request(shards: Path, root: Path, **changes: Any) -> RunRequest:
    config = config_of(shards, root / "runs", **changes)
    return RunRequest(config, "study", config.name)


def test_what_drives_a_trial_takes_no_cpu_from_its_workers_and_nothing_of_a_head_without_room_for_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"NodeID": "ab12", "Alive": True, "Resources": {"CPU": 4.0, "node:__internal_head__": 1.0}}
    before = head | {"NodeID": "cd34", "Alive": False}
    monkeypatch.setattr(room.ray, "nodes", lambda: [before, {"NodeID": "ef56", "Alive": True, "Resources": {}}, head])

    monkeypatch.setattr("ray.tune.execution.placement_groups.placement_group", lambda *bundles, **where: where)

    def held(**changes: Any) -> tuple[float, Any]:
        factory = resources_of({"trial": "a"}, requests={"a": request(shards, tmp_path, **changes)})
        return factory.required_resources.get("CPU", 0), factory().get("bundle_label_selector")

    off_head = [{"ray.io/node-id": "!ab12"}]
    assert held(**{"train.num_workers": 2, "train.cpus_per_worker": 4}) == (0, None), "a worker may be there as well"
    assert held(**{"train.num_workers": 2, "train.cpus_per_worker": 5}) == (0, off_head)
    assert held(**{"train.cpus_per_worker": 4}) == (4, None)
    head["Resources"] = {"node:__internal_head__": 1.0}
    assert held(**{"train.num_workers": 2, "train.cpus_per_worker": 4}) == (0, off_head)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (None, None),
        (ActorDiedError(), RayActorError),  # Train's controller: Tune starts the trial again
        (WorkerGroupError("workers were lost", {0: ActorDiedError()}), ResourceError),
    ],
)
def test_a_trial_of_several_workers_waits_for_nodes_that_have_gone(
    ends: Exception | None,
    expected: type[Exception] | None,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, told = request(shards, tmp_path, **{"train.num_workers": 2, "train.cpus_per_worker": 1.0}), list[str]()
    one = dataclasses.replace(one, watcher=lambda record: told.append(record.get("event", "")))
    begun: list[str] = []

    class Trainer:
        """Ray Train's, which waits for its workers' nodes without end."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            begun.append(settings["run_config"].name)

        def fit(self) -> None:
            if ends is not None:
                raise ends
            RunFolder.of(one.config).finish({"name": one.config.name})

    monkeypatch.setattr(workers, "TorchTrainer", Trainer)
    monkeypatch.setattr("ray.tune.integration.ray_train.TuneReportCallback", UserCallback)
    monkeypatch.setattr("ovos_ray.on_ray.trial.trial_is_being_stopped", lambda: False)
    monkeypatch.setattr(room.ray, "nodes", lambda: [{"Alive": True, "Resources": {"memory": 1e10}}])
    monkeypatch.setattr(room.ray, "available_resources", lambda: {"memory": 1e10})
    monkeypatch.setattr("ovos_ray.on_ray.trial._LAST_MOMENT_S", 0.0)
    with pytest.raises(RayActorError) if expected is RayActorError else nullcontext():
        run_trial({"trial": "a"}, requests={"a": one})
    noted = noted_failure(one.config) or {"error": None}
    assert noted["error"] == {None: None, RayActorError: "ActorDiedError", ResourceError: "ResourceError"}[expected]
    assert any(event.startswith("failed: a training worker was killed") for event in told) == (
        expected is ResourceError
    )
    assert len(begun) == 1
    assert "waiting until 1 CPU for each of 2 workers are free" in told


@pytest.mark.parametrize(("free", "group", "told"), [(2.0, "", 1), (0.0, "", 1), (2.0, "CREATED", 0), (9.0, "", 0)])
def test_a_run_says_what_it_waits_for_also_if_another_took_it_at_the_same_moment(
    free: float, group: str, told: int, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, cpus = list[str](), iter([free, free if free > 2 else 0.0])
    wanted = request(shards, tmp_path, **{"train.num_workers": 2, "train.cpus_per_worker": 1.0})
    one = dataclasses.replace(wanted, watcher=lambda record: events.append(record["event"]))
    monkeypatch.setattr(room.ray, "available_resources", lambda: {"CPU": next(cpus)})
    monkeypatch.setattr("ovos_ray.on_ray.workers.ray.util.placement_group_table", lambda: {"a1": {"state": group}})
    monkeypatch.setattr(workers, "_SILENCE_S", 0.01)
    if group:
        RunFolder.of(one.config).storage.write(b"a1", "placement_group")
    before = set(threading.enumerate())
    with workers._saying_what_is_held(one):
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    assert events == ["waiting until 1 CPU for each of 2 workers are free"] * told


@pytest.mark.parametrize(("text", "expected"), [("15", 15.0), (15.0, 15.0), ("15m", 15.0), ("90s", 1.5), ("2h", 120.0)])
def test_a_time_to_wait_has_a_unit_or_is_in_minutes(text: str | float, expected: float) -> None:
    assert minutes(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "m", "-1", "1 day", "15min", "nan"])
def test_what_is_no_time_to_wait_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no time to wait"):
        minutes(text)
