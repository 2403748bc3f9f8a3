"""A run and a study that are told to end, by SIGTERM or Ctrl-C: the step under way is made, and nothing is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from interrupted import interrupted
from runs import PROCESSES, config_of, result_of, same, train_alone

from ovos_ray.config import ExperimentConfig
from ovos_ray.run import loop
from ovos_ray.train.run_folder import RunFolder


def small(shards: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    few = {"train.steps": 6, "data.batch_size": 2, "data.crop_size": 32, "network.name": "stcn-tiny"}
    return config_of(shards, storage, **{**few, "train.checkpoint_every": 100, "train.log_every": 1, **changes})


def told_to_end(config: ExperimentConfig, number: int, times: int) -> None:
    """Trains, and gets a signal, or two, in its third step: when the weights have changed, and nobody knows yet."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    train_step, steps = loop.train_step, list[int]()

    def step(*arguments: Any, **more: Any) -> Any:
        made = train_step(*arguments, **more)
        steps.append(1)
        if len(steps) == 3:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return made

    loop.train_step = step
    try:
        train_alone(config)
    except KeyboardInterrupt:
        raise SystemExit(128 + number) from None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_finishes_its_step_and_loses_nothing(
    number: int, shards: Path, tmp_path: Path
) -> None:
    config = small(shards, tmp_path)
    process = PROCESSES.Process(target=told_to_end, args=(config, number, 1))
    process.start()
    process.join(60)
    assert process.exitcode == 128 + number
    assert RunFolder.of(config).checkpoints().latest() == 3
    assert same(train_alone(config), train_alone(small(shards, tmp_path, name="whole")))
    assert result_of(config)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_in_its_step_and_no_half_a_step_is_written_down(
    number: int, shards: Path, tmp_path: Path
) -> None:
    config = small(shards, tmp_path)
    process = PROCESSES.Process(target=told_to_end, args=(config, number, 2))
    process.start()
    process.join(60)
    assert process.exitcode == 128 + number
    assert RunFolder.of(config).checkpoints().latest() is None


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train", "trainables.one_shot"], ["sweep", "search_spaces.smoke"]])
def test_ctrl_c_loses_no_step_and_says_how_to_go_on(words: list[str], shards: Path, tmp_path: Path) -> None:
    (run,) = interrupted([*words, "--no-ray"], shards, tmp_path)
    assert RunFolder.at(str(run.parent), run.name).checkpoints().latest()
    assert not (run / "failure.json").exists()
