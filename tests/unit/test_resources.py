"""What fits on a cluster, by hand-made arithmetic, and refusals that show it."""

from __future__ import annotations

import pytest

from ovos_ray.config import ExperimentConfig, TrainConfig, override
from ovos_ray.errors import ResourceError
from ovos_ray.run.resources import check_fits, decoders_of_worker, max_concurrent

Node = dict[str, float]


def asks(workers: int, cpus: float, gpus: float = 0.0) -> TrainConfig:
    return TrainConfig(num_workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)


@pytest.mark.parametrize(
    ("trains", "resources", "expected"),
    [
        ([asks(1, 0.45)], {"CPU": 2}, 4),
        ([asks(1, 1.0)], {"CPU": 2}, 2),
        ([asks(2, 1.0)], {"CPU": 8}, 4),
        ([asks(2, 4.0, 1)], {"CPU": 128, "GPU": 8}, 4),
        ([asks(1, 1.0, 0.25)], {"CPU": 64, "GPU": 2}, 8),
        ([asks(1, 8.0, 0.25)], {"CPU": 25, "GPU": 2}, 3),  # CPUs run out first
        ([asks(1, 1.0), asks(4, 1.0), asks(2, 1.0)], {"CPU": 13}, 3),  # the largest counts
        ([asks(1, 4.0, 0.5), asks(1, 4.0, 2)], {"CPU": 64, "GPU": 8}, 4),
        ([asks(1, 4.0)], {"CPU": 2}, 1),
    ],
)
def test_concurrency_is_what_the_cluster_holds_of_the_largest(
    trains: list[TrainConfig], resources: Node, expected: int
) -> None:
    assert max_concurrent(trains, resources) == expected


@pytest.mark.parametrize(
    ("train", "nodes"),
    [
        (asks(1, 1.0), [{"CPU": 2}]),
        (asks(2, 0.5, 0.5), [{"CPU": 4, "GPU": 1}]),
        (asks(4, 4.0, 1), [{"CPU": 10, "GPU": 2}, {"CPU": 10, "GPU": 2}]),
        (asks(1, 2.0, 1), [{}, {"CPU": 8, "GPU": 1}]),  # a head that is kept free
        (asks(3, 1, 0.75), [{"CPU": 8, "GPU": 1}] * 3),
    ],
)
def test_what_fits_is_not_refused(train: TrainConfig, nodes: list[Node]) -> None:
    check_fits(train, nodes)


@pytest.mark.parametrize(
    ("train", "nodes", "words"),
    [
        (asks(2, 1, 1), [{"CPU": 16, "GPU": 1}], "2 workers x 1 GPUs = 2 GPUs are asked for, the cluster has 1"),
        (asks(3, 1.0), [{"CPU": 2}], r"3 workers x 1 CPUs = 3 CPUs are asked for, the cluster has 2"),
        (asks(1, 12.0), [{"CPU": 8}, {"CPU": 8}], r"1 workers of 12 CPUs .* 0 fit .*8 CPUs \+ 0 GPUs, 8 CPUs"),
        (asks(4, 1, 0.75), [{"CPU": 8, "GPU": 1}] * 3, "4 workers of .* 3 fit"),
        (asks(1, 1, 4), [{"CPU": 8, "GPU": 2}] * 2, "1 workers of .* 0 fit"),
        (asks(1, 4.0, 1), [{}], "1 workers x 1 GPUs = 1 GPUs are asked for, the cluster has 0"),
    ],
)
def test_what_has_no_room_is_refused_with_the_arithmetic(train: TrainConfig, nodes: list[Node], words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        check_fits(train, nodes)


def test_elastic_workers_are_refused_only_where_not_even_the_fewest_fit() -> None:
    elastic = TrainConfig(num_workers=4, min_workers=2, cpus_per_worker=1.0)
    check_fits(elastic, [{"CPU": 2}])
    with pytest.raises(ResourceError, match=r"2 workers x 1 CPUs = 2") as error:
        check_fits(elastic, [{"CPU": 1}])
    assert "lower train.min_workers" in (error.value.remedy or "")
    assert elastic.clips_per_worker(5) == 3
    assert max_concurrent([elastic], {"CPU": 8}) == 2, "as many as fit with all workers"


@pytest.mark.parametrize(
    ("train", "node", "expected"),
    [
        (asks(1, 1.0), {"CPU": 2}, 1),  # each of two has one
        (asks(1, 0.45), {"CPU": 2}, 1),  # half a CPU each
        (asks(1, 4.0), {"CPU": 16}, 4),
        (asks(1, 1.0, 1), {"CPU": 16, "GPU": 1}, 16),  # nobody else can use the others
        (asks(4, 2.0, 0.5), {"CPU": 16, "GPU": 2}, 4),
        (asks(1, 0.0), {"CPU": 4}, 1),
        (asks(1, 8.0), {"CPU": 4}, 4),
    ],
)
def test_a_worker_decodes_on_its_part_of_its_node(train: TrainConfig, node: Node, expected: int) -> None:
    config = ExperimentConfig(train=train)
    assert decoders_of_worker(config, node) == expected
    assert decoders_of_worker(override(config, {"data.decode_cpus": 3}), node) == 3
