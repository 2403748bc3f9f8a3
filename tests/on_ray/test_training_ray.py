"""Training under Ray: the same batches for any number of workers, and resumed from where it stopped."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import wait_for
from runs import Weights, config_of, local_stream, result_of, same, train_alone

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.data.clips.batches import LocalStream
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.run.request import RunRequest
from ovos_ray.seeding import generator
from ovos_ray.train.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Batch = dict[str, torch.Tensor]


def local_batches(config: ExperimentConfig) -> list[Batch]:
    return list(local_stream(config).batches())


def streamed(config: ExperimentConfig, world_size: int, start_step: int = 0) -> list[Batch]:
    """The global batches that `world_size` ranks stream through Ray Data, put together again."""
    from ovos_ray.on_ray.stream import RankStream, stream_spec

    ranks = [RankStream(stream_spec(config), r, world_size, start_step).batches() for r in range(world_size)]
    steps = zip(*ranks, strict=True)
    return [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in steps]


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    "changes", [{}, {"data.static_share": ((0.0, 1.0), (0.25, 0.5)), "method.further_labels": "compare"}]
)
def test_global_batches_do_not_depend_on_workers_blocks_or_resuming(
    changes: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    config = config_of(shards, tmp_path, **changes)
    alone = local_batches(config)
    assert [int(p) for batch in alone for p in batch["position"]] == list(range(8 * 4))
    for world_size in (1, 2):
        assert equal(streamed(config, world_size), alone)
    assert equal(streamed(config, 2, start_step=5), alone[5:])
    assert not equal(local_batches(override(config, {"seed": 1})), alone)


def run(config: ExperimentConfig, watcher: Callable[[dict[str, Any]], None] | None = None) -> Weights:
    from ovos_ray.on_ray.fit import fit

    fit(RunRequest(config, experiment="test", run_key=config.name, watcher=watcher))
    return result_of(config)


@pytest.mark.usefixtures("ray_cluster")
def test_the_same_request_again_resumes_and_a_finished_run_is_left_alone(shards: Path, tmp_path: Path) -> None:
    from ovos_ray.on_ray.fit import fit

    config = config_of(shards, tmp_path)
    folder = RunFolder.of(config)
    # A run of which only the first steps exist: what is left when a driver dies.
    with pytest.raises(RuntimeError, match="the driver dies"):
        train_alone(config, Dying(local_stream(config), after=5))
    assert folder.checkpoints().latest() == 4
    records: list[dict[str, Any]] = []
    weights = run(config, busy_cluster())
    assert same(weights, train_alone(override(config, {"name": "local"})))
    assert not same(weights, train_alone(override(config, {"name": "other", "seed": 1})))
    result = folder.result()
    assert result is not None
    assert result["steps"] == 8
    again = fit(RunRequest(config, experiment="test", run_key="run", watcher=records.append))
    assert again.resumed_finished
    assert not records


def busy_cluster() -> Callable[[dict[str, Any]], None]:
    """Takes every CPU of the cluster, until a run says that it waits for one; returns the run's watcher."""
    import ray

    group = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    ray.get(group.ready())
    wait_for(lambda: ray.available_resources().get("CPU", 0) < 0.5)

    def listen(record: dict[str, Any]) -> None:
        if record.get("event") == "waiting until 0.5 CPU are free":
            ray.util.remove_placement_group(group)

    return listen


class Dying:
    """A stream that ends in an error."""

    def __init__(self, stream: LocalStream, after: int) -> None:
        self._stream, self._after = stream, after
        self.start_step, self.problems = stream.start_step, stream.problems

    def batches(self) -> Iterator[Batch]:
        yield from itertools.islice(self._stream.batches(), self._after)
        raise RuntimeError("the driver dies")


@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_train_to_the_end(shards: Path, tmp_path: Path) -> None:
    # Adam divides by the gradient's size: with a small epsilon it would make much of the rounding of zeros.
    two = run(config_of(shards, tmp_path, name="two", **{"train.num_workers": 2, "optimizer.epsilon": 1e-3}))
    one = train_alone(config_of(shards, tmp_path, name="one", **{"optimizer.epsilon": 1e-3}))
    other = train_alone(config_of(shards, tmp_path, name="other", **{"optimizer.epsilon": 1e-3, "seed": 1}))
    start = networks.build("xmem-tiny", seed=0).state_dict()
    # The tight check of what two workers compute is that of their gradients; here rounding has had eight steps to grow.
    assert distance(two, one) < 1e-2 * distance(one, start)
    assert distance(other, one) > 0.5 * distance(one, start)


def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Euclidean, over all weights."""
    return math.sqrt(sum(float((one[name].double() - two[name].double()).square().sum()) for name in one))


@pytest.mark.usefixtures("ray_cluster")
def test_every_worker_process_knows_which_cluster_is_its_own() -> None:
    """Or Ray Train would ask whichever was started last on the machine whether a run still lives."""
    import ray

    def told() -> str | None:
        import os

        return os.environ.get("RAY_ADDRESS")

    assert ray.get(ray.remote(told).remote()) == ray.get_runtime_context().gcs_address


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_launch_of_a_run_still_holds_is_given_back(tmp_path: Path) -> None:
    import ray

    from ovos_ray.on_ray.workers import free_processors

    folders = [RunFolder.of(config_of(tmp_path, tmp_path, name=name)) for name in "abc"]
    free_processors(folders)  # runs that were never launched
    group, gone, other = (ray.util.placement_group([{"CPU": 0.5}]) for _ in range(3))
    ray.get([group.ready(), gone.ready(), other.ready()])
    for folder, held in zip(folders, (group, gone), strict=False):
        folder.storage.write(held.id.hex().encode(), "placement_group")
    ray.util.remove_placement_group(gone)
    free_processors(folders, after_s=0.1)
    assert [ray.util.placement_group_table(one)["state"] for one in (group, gone, other)] == 2 * ["REMOVED"] + [
        "CREATED"
    ]
    ray.util.remove_placement_group(other)


@pytest.mark.usefixtures("ray_cluster")
def test_a_batch_that_does_not_come_ends_the_wait_with_what_the_cluster_does(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.errors import ResourceError
    from ovos_ray.on_ray import stall
    from ovos_ray.on_ray.stream import RankStream, stream_spec

    monkeypatch.setattr(stall, "_LOOK_S", 300.0)  # a busy machine's cluster answers late
    stream = RankStream(stream_spec(config_of(shards, tmp_path)), 0, 1, 3, patience_s=1e-3)
    with pytest.raises(ResourceError, match=r"the batch of step 3 for rank 0 did not come within 0.001 s") as caught:
        next(stream.batches())
    assert re.search(r"1 of 1 nodes live; [\d.]+ of 2 CPUs are free, \d+ % of the object store", caught.value.message)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_datas_scheduling_loop_asks_whether_to_rest_at_every_turn(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovos_ray.on_ray import stream

    turns = []

    class Counting(stream.RestingScheduler):
        def on_execution_step(self, executor: Any) -> None:
            turns.append(self._num_quick)
            super().on_execution_step(executor)

    monkeypatch.setattr(stream, "RestingScheduler", Counting)
    config = config_of(shards, tmp_path)
    assert equal(streamed(config, 1), local_batches(config))
    assert turns


@pytest.mark.usefixtures("ray_cluster")
def test_own_errors_are_raised_at_once_and_unwrapped(shards: Path, tmp_path: Path) -> None:
    from ovos_ray.on_ray.fit import fit

    broken = tmp_path / "shards"
    broken.mkdir()
    for path in shards.iterdir():
        content = bytearray(path.read_bytes())
        if path.suffix == ".parquet":
            content[len(content) // 4 : 3 * len(content) // 4] = bytes(len(content) // 2)
        (broken / path.name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        fit(RunRequest(config_of(broken, tmp_path), experiment="test", run_key="broken"))
    assert "frames-00000.parquet" in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be split over 5 workers"):
        fit(RunRequest(config_of(shards, tmp_path, name="x", **{"train.num_workers": 5}), "test", "x"))


@pytest.mark.usefixtures("ray_cluster")
def test_more_than_the_cluster_has_is_refused_with_the_arithmetic(shards: Path, tmp_path: Path) -> None:
    from ovos_ray.errors import ResourceError
    from ovos_ray.on_ray.fit import fit

    for changes, words in (
        ({"train.gpus_per_worker": 1.0}, "1 workers x 1 GPUs = 1 GPUs"),
        ({"train.cpus_per_worker": 64.0}, "1 workers x 64 CPUs = 64 CPUs"),
    ):
        with pytest.raises(ResourceError, match=words):
            fit(RunRequest(config_of(shards, tmp_path, **changes), experiment="test", run_key="big"))


def test_the_generator_of_a_step_is_the_same_on_all_ranks() -> None:
    assert generator(0, 3, "step").integers(2**63) == generator(0, 3, "step").integers(2**63)
    assert generator(0, 3, "step").integers(2**63) != generator(0, 4, "step").integers(2**63)
