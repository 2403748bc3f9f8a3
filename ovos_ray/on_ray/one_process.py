"""A run of one worker in one process: Ray Train's local mode, without a controller and a worker group of its own.

`ScalingConfig(num_workers=0)` makes `TorchTrainer` call the loop in the process that calls `fit`, which holds the CPUs
and the GPU of the run: the actor of a Tune trial, or a task for a plain run. A process that has trained before begins
the next run at once, where a worker group of one takes half a minute and seven processes. What it does not do there:
call `UserCallback`s, so that Tune is told directly, and start a lost process again, which is Tune's work or ours.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchTrainer

from ovos_ray.config import ExperimentConfig
from ovos_ray.on_ray.causes import lasting_cause, post_restart, was_killed
from ovos_ray.on_ray.leaving import drained_nodes, leaving_nodes, this_node_id
from ovos_ray.on_ray.room import processors, say_what_is_held, this_node
from ovos_ray.on_ray.scoring import ScoringTasks
from ovos_ray.on_ray.stream import RankStream, stream_spec
from ovos_ray.run.loop import Report, train_run
from ovos_ray.run.out_of_memory import killed_workers
from ovos_ray.run.request import RunRequest
from ovos_ray.run.resources import decoders_of_worker
from ovos_ray.run.resume import Start, marked_step
from ovos_ray.train.run_folder import RunFolder

__all__ = ["train_in_task", "train_in_this_process"]


def train_in_this_process(request: RunRequest, report: Report | None = None) -> None:
    """Trains a run of one worker here, from its last checkpoint to its result.

    Args:
        request: The run. This process must hold what `processors` says.
        report: See `run.loop.train_run`.
    """
    TorchTrainer(
        _loop,
        train_loop_config={"request": request, "report": report},
        scaling_config=ray.train.ScalingConfig(num_workers=0, use_gpu=request.config.train.gpus_per_worker > 0),
    ).fit()


def _loop(arguments: dict[str, Any]) -> None:
    request: RunRequest = arguments["request"]
    config = request.config
    # Without a GPU of its own a process would be given the first one that it sees.
    device = ray.train.torch.get_device() if config.train.gpus_per_worker else torch.device("cpu")
    _forget_earlier_runs(config, device)
    start, decoders = Start(config), decoders_of_worker(config, this_node())
    stream = RankStream(stream_spec(config), 0, 1, start.step, decoders, config.train.stall_timeout_s)
    with leaving_nodes([this_node_id()]) as warning, ScoringTasks(decoders) as scorers:
        report = arguments["report"]
        train_run(request, stream, device=device, report=report, start=start, warning=warning, scorers=scorers)


@functools.cache
def _keep_imports() -> None:
    """Spares what this process has imported from being searched for garbage again: a quarter of a second a run."""
    gc.collect()
    gc.freeze()


def _forget_earlier_runs(config: ExperimentConfig, device: torch.device) -> None:
    """Gives back what earlier runs of this process have left, and counts from zero again."""
    _keep_imports()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.init()  # or there is nothing to count yet
        torch.cuda.set_device(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    if config.train.compile:
        torch.compiler.reset()  # or a function that was compiled for eight kinds of runs is not compiled for a ninth


_NODE = "node"
"""A file in the run's folder: the node that its worker was on last. Of a lost task Ray does not say where it was."""


def _train_and_say_where(request: RunRequest) -> None:
    RunFolder.of(request.config).storage.write(this_node_id().encode(), _NODE)
    train_in_this_process(request)


def _node_of(config: ExperimentConfig) -> str:
    storage = RunFolder.of(config).storage
    return storage.read(_NODE).decode() if storage.exists(_NODE) else ""


def train_in_task(request: RunRequest) -> None:
    """Trains a run of one worker in a Ray task, and starts it again from its checkpoint where its process is lost.

    Raises:
        OvosError: What the run itself raised, unwrapped.
        ResourceError: Its process was killed more than `train.max_failures` times, those on drained nodes aside.
    """
    config = request.config
    have = processors(config)
    # A task and not an actor: the next run of the same driver finds a process with everything imported.
    task = ray.remote(_train_and_say_where).options(
        num_cpus=have["CPU"], num_gpus=have.get("GPU", 0), max_retries=0, name=f"train {config.name}"
    )
    failures = 0
    while True:
        say_what_is_held(request)
        with drained_nodes() as was_drained:
            running = task.remote(request)
            try:
                ray.get(running)
            except Exception as error:
                if (cause := lasting_cause(error)) is not None:
                    raise cause from None
                killed = was_killed(error)
                failures += not (killed and was_drained(_node_of(config)))
                if failures > config.train.max_failures:
                    if killed:
                        raise killed_workers(config, marked_step(config)) from error
                    raise
                post_restart(request, 0, error)
            except BaseException as error:
                _end(running, gently=isinstance(error, KeyboardInterrupt))
                raise
            else:
                return


def _end(running: ray.ObjectRef, *, gently: bool) -> None:
    """Ends a task: at once or, gently, as Ctrl-C in its own process would, unless this is interrupted again."""
    try:
        if gently:
            ray.cancel(running)
            with contextlib.suppress(Exception):
                ray.get(running)
    finally:
        with contextlib.suppress(Exception):
            ray.cancel(running, force=True)
