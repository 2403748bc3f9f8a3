"""A run and a study that are told to end, by SIGTERM or Ctrl-C: the step under way is made, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from runs import PROCESSES, config_of, result_of, same, train_alone

from ovos_ray.config import ExperimentConfig
from ovos_ray.run import loop
from ovos_ray.train.run_folder import RunFolder

INTERRUPTED = "interrupted; the same command goes on where this one stopped"
SETTINGS = {
    "network.name": "stcn-tiny",
    "data.clip_length": 4,
    "data.batch_size": 2,
    "data.crop_size": 32,
    "train.steps": 100_000,
    "train.checkpoint_every": 100_000,
    "train.log_every": 1,
    "train.num_threads": 1,
    "evaluation.root": "none",
    "tracking_uri": "",
    "name": "one",
}


def small(shards: Path, storage: Path, **changes: Any) -> ExperimentConfig:
    few = {"train.steps": 6, "data.batch_size": 2, "data.crop_size": 32, "network.name": "stcn-tiny"}
    return config_of(shards, storage, **{**few, "train.checkpoint_every": 100, "train.log_every": 1, **changes})


def told_to_end(config: ExperimentConfig, number: int, times: int) -> None:
    """Trains, and gets a signal, or two, in its third step: when the weights have changed, and nobody knows yet."""
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
@pytest.mark.parametrize(
    "verb", [("train", "trainables.one_shot"), ("sweep", "search_spaces.smoke")], ids=lambda v: v[0]
)
def test_ctrl_c_loses_no_step_and_says_how_to_go_on(verb: tuple[str, str], shards: Path, tmp_path: Path) -> None:
    """To the whole group of processes, as a terminal does."""
    settings = {**SETTINGS, "data.shards": shards, "storage": tmp_path / "runs"}
    command = [
        sys.executable,
        "-m",
        "ovos_ray",
        *verb,
        "--no-ray",
        *(f"{key}={value}" for key, value in settings.items()),
    ]
    repository = str(Path(__file__).resolve().parents[2])
    with ExitStack() as stack:
        one: subprocess.Popen[str] = stack.enter_context(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": repository, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(one.kill)
        assert one.stdout is not None
        shown = next(line for line in one.stdout if "step " in line and "loss" in line)
        os.killpg(one.pid, signal.SIGINT)
        said = one.stdout.read()
        assert one.wait() == 130, said
    assert said.splitlines()[-1] == INTERRUPTED
    (run,) = [path.parent for path in (tmp_path / "runs").rglob("config.json")]
    assert RunFolder.at(str(run.parent), run.name).checkpoints().latest(), shown
    assert not (run / "failure.json").exists()
