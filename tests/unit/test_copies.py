"""Batches on their way to a device: one ahead, in order, and the same."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from batches import make_batch
from runs import Weights, config_of, local_stream, same
from torch import Tensor

from ovos_ray.run import loop
from ovos_ray.run.request import RunRequest
from ovos_ray.train.copies import on_device, one_ahead

CPU = torch.device("cpu")


def numbers(taken: list[int], stop: int, error: Exception | None = None) -> Iterator[int]:
    for number in range(stop):
        taken.append(number)
        yield number
    if error is not None:
        raise error


def test_items_come_in_order_and_one_is_on_its_way_while_another_is_used() -> None:
    taken: list[int] = []
    threads: set[int] = set()
    sent = threading.Semaphore(0)

    def send(number: int) -> int:
        threads.add(threading.get_ident())
        sent.release()
        return 10 * number

    found = one_ahead(numbers(taken, 4), send)
    assert taken == []
    for expected in range(4):
        assert next(found) == 10 * expected
        assert len(taken) == min(expected + 2, 4)
        assert sent.acquire(timeout=5)
    assert list(found) == []
    assert threading.get_ident() not in threads
    assert len(threads) == 1


def test_what_came_before_an_error_is_used_first() -> None:
    found = one_ahead(numbers([], 2, ValueError("a bad row")), str)
    assert [next(found), next(found)] == ["0", "1"]
    with pytest.raises(ValueError, match="a bad row"):
        next(found)


def test_an_error_of_the_copy_is_raised_and_nothing_more_is_taken() -> None:
    taken: list[int] = []
    found = one_ahead(numbers(taken, 9), lambda number: 1 // (1 - number))
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert len(taken) <= 3


def test_closed_it_leaves_its_source_to_be_closed_and_no_thread() -> None:
    taken: list[int] = []
    source = numbers(taken, 9)
    assert isinstance(source, Generator)
    found = one_ahead(source, str)
    next(found)
    found.close()
    source.close()
    assert len(taken) == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("copies")]


def test_on_a_cpu_no_batch_is_taken_before_it_is_asked_for() -> None:
    taken: list[int] = []
    batch = make_batch(1)
    found = on_device((batch for _ in numbers(taken, 3)), CPU)
    assert next(found)["frames"] is batch["frames"]
    assert taken == [0]


def test_a_run_that_is_one_ahead_trains_the_same(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(name: str) -> Weights:
        config = config_of(shards, tmp_path, name=name, **{"train.steps": 2})
        return loop.train_run(RunRequest(config, "none", "none"), local_stream(config)).state_dict()

    expected = trained("plain")

    def ahead(batches: Iterator[dict[str, Tensor]], _: torch.device) -> Generator[dict[str, Tensor]]:
        return one_ahead(batches, lambda batch: {name: value.clone() for name, value in batch.items()})

    monkeypatch.setattr(loop, "on_device", ahead)
    assert same(trained("ahead"), expected)
