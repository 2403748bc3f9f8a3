"""The training loop: one rank of one run, from its last checkpoint to its result.

Nothing here knows Ray: where batches come from and whom to report to is handed in, so that the same loop runs under
Ray Train (`on_ray.fit`) and in a plain process (`run.here`, benchmarks, debugging).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ovos_ray.config import ExperimentConfig
from ovos_ray.evaluate.evaluation import evaluate_network
from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.networks.base import VOSNetwork, num_trained
from ovos_ray.run.notice import heeding_signals
from ovos_ray.run.out_of_memory import naming_what_to_lower
from ovos_ray.run.progress import IntervalMeter
from ovos_ray.run.request import RunRequest
from ovos_ray.run.result import finish_run
from ovos_ray.run.resume import Start, shared_state
from ovos_ray.run.run_log import RunLog
from ovos_ray.run.state import RunState
from ovos_ray.train.copies import on_device
from ovos_ray.train.numerics import set_numerics
from ovos_ray.train.step import distributed, train_step

__all__ = ["Report", "Stream", "train_run"]

Report = Callable[[dict[str, float]], None]
"""Told the scores of every validation, with their `step`, and at the end the final ones; may end the run."""


class Stream(Protocol):
    """Where a rank's batches come from: `on_ray.stream.RankStream` on Ray, `data.clips.batches.LocalStream` without."""

    start_step: int
    problems: list[tuple[int, str]]

    def batches(self) -> Generator[dict[str, Tensor]]:
        """Yields one micro-batch a step from `start_step` to the last step; closed, it stops decoding."""
        ...


def train_run(
    request: RunRequest,
    stream: Stream,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
    report: Report | None = None,
    start: Start | None = None,
    warning: Callable[[], str] = str,
    scorers: Executor | None = None,
) -> VOSNetwork:
    """Trains to the last step, scores, and marks the run as finished; a segment is scored only where its run ends.

    Args:
        request: The run.
        stream: The rank's batches, from the step on where the run continues.
        rank: Which of the ranks this is; they call this together, in one `torch.distributed` group.
        world_size: How many ranks there are.
        device: What to train on; None: the CPU.
        report: Told the scores.
        start: Where the stream begins, with the state read already; None: it is read here.
        warning: Returns at once why this process may end soon, or nothing as long as no reason is known. As soon as
            there is one, a checkpoint is written, and another one every few seconds.
        scorers: Score videos beside the prediction; see `evaluate_network`.

    Returns:
        The network as it was scored.

    Raises:
        ResourceError: Memory ran out; names the settings to lower.
        OvosError: Data could not be read, or the loss stayed non-finite.
        SystemExit: The process was told to end (SIGTERM); its last step is written down.
        KeyboardInterrupt: So was it by Ctrl-C (SIGINT); a second one does not wait.
    """
    config, stop = request.config, request.config.stop_step
    device, done = device or torch.device("cpu"), stream.start_step
    report = report or (lambda _: None)
    # Between two intervals rank 0 may write a checkpoint without asking the others, unless they may have met bad
    # samples that it does not know of.
    alone = world_size == 1 or config.data.on_bad_row == "error"
    with naming_what_to_lower(config), ExitStack() as stack:
        set_numerics(config.train, device)
        state = _state_at(config, done, device, start, rank, world_size)
        if rank == 0:
            stack.enter_context(request.lease.followed())
        log = stack.enter_context(closing(RunLog(request, rank=rank, start_step=done, device=device)))
        stack.callback(lambda: log.skipped_steps(state.module.skipped.steps))  # also where they were too many
        log.say(done, _greeting(state, done, world_size, device))
        if state.changed_code:
            log.changed_code(done, state.changed_code)
        if config.train.snapshot_every and done == 0:
            log.snapshot(state.network, 0)
        module = state.module if world_size == 1 else distributed(state.module)
        meter = IntervalMeter(config.data.batch_size, stop)
        batches = stack.enter_context(closing(on_device(stack.enter_context(closing(stream.batches())), device)))
        notice = stack.enter_context(heeding_signals(signal.SIGTERM, signal.SIGINT))
        owes = False  # a validation or snapshot of the last step, which a run that goes on from it would not make
        stack.callback(lambda: log.last_checkpoint(state, done) if notice.given and not (owes or notice.cut) else None)
        for step, batch, waited_s in _timed(batches, range(done, stop)):
            log.require_held()
            due = _Due.after(step + 1, config)
            with notice.after_this():
                meter.add(train_step(module, batch, state.optimizer, config, step, wait=device.type == "cpu"), waited_s)
                state.after_step()
                done, owes = step + 1, due.validation or due.snapshot
                if due.interval or due.checkpoint:
                    state.module.skipped.read()
                if due.interval:
                    state.bad_samples.gather(stream.problems, done, world_size)
                    log.skipped_steps(state.module.skipped.steps)
                    log.without_graphs(done, state.module.graphs.failed)
                    log.interval(done, meter.flush(done), len(state.bad_samples))
            with meter.paused():
                if due.snapshot:
                    log.snapshot(state.network, done)
                scores = _validate(state, done, rank, world_size, scorers) if due.validation else {}
                if scores:
                    log.scores(done, scores)
            owes = False
            # The checkpoint follows, so that it knows the best step: resumed from it, nothing is validated twice.
            is_best = state.best is not None and state.best["step"] == done
            if due.checkpoint or is_best:
                state.bad_samples.gather(stream.problems, done, world_size)
                log.checkpoint(state, done, must_succeed=due.last or is_best)
            elif (alone or due.interval) and log.checkpoint_is_due(done, warning()):
                state.module.skipped.read()
                state.bad_samples.gather(stream.problems, done, 1)
                log.checkpoint(state, done, must_succeed=False)
            if due.last:
                log.cycle(state.network, batch, step)
            if scores:
                report({"step": float(done), **scores})
        final = finish_run(request, state, log, rank, world_size, scorers)
        report({"step": float(stop), **{f"final/{name}": value for name, value in final.items()}})
        return state.network


def _state_at(
    config: ExperimentConfig, done: int, device: torch.device, start: Start | None, rank: int, world_size: int
) -> RunState:
    """Returns the state to go on from. What was read of its checkpoint is large, and not kept."""
    stored = None if start is None else start.take()
    if done and world_size > 1:
        stored = shared_state(config, done, stored, rank)
    return RunState.at(config, done, device, stored)


@dataclass(frozen=True)
class _Due:
    """What is to be done after a step, by its number alone; after the last one all that the settings ask for."""

    last: bool
    interval: bool
    checkpoint: bool
    snapshot: bool
    validation: bool

    @classmethod
    def after(cls, done: int, config: ExperimentConfig) -> _Due:
        """Returns what follows so many steps."""
        last = done == config.stop_step

        def is_due(every: int) -> bool:
            return last or (every > 0 and done % every == 0)

        return cls(
            last=last,
            interval=is_due(config.train.log_every),
            checkpoint=is_due(config.train.checkpoint_every),
            snapshot=bool(config.train.snapshot_every) and is_due(config.train.snapshot_every),
            validation=config.validation.source is not None and is_due(config.validation.every),
        )


def _greeting(state: RunState, start: int, world_size: int, device: torch.device) -> str:
    number = num_trained(state.network)
    workers = f"{world_size} worker" + ("" if world_size == 1 else "s")
    begins = f"resuming at step {start}" if start else "starting"
    equal = ", where no two runs need be equal" if device.type == "cuda" and state.config.train.deterministic else ""
    return f"{begins}: {state.config.network.name}, {number:,} parameters, {workers} on {device}{equal}"


def _timed(batches: Iterator[dict[str, Tensor]], steps: range) -> Iterator[tuple[int, dict[str, Tensor], float]]:
    """Yields step, batch, and the seconds that were waited for it."""
    for step in steps:
        asked = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - asked
        yield step, batch, waited_s


def _validate(state: RunState, done: int, rank: int, world_size: int, scorers: Executor | None) -> dict[str, float]:
    """Scores the validation split; every rank gets the same scores, and keeps the same step as the best."""
    validation = state.config.validation
    table = evaluate_network(
        state.network,
        root=str(validation.source),
        layout=validation.layout,
        split=validation.split,
        num_videos=validation.num_videos,
        rank=rank,
        world_size=world_size,
        scorers=scorers,
    )
    state.validation = table.headline()
    scores = {f"val/{name}": value for name, value in state.validation.items()}
    chosen_by = f"val/{PRIMARY.key}"
    if validation.select_best and (state.best is None or scores[chosen_by] > state.best[chosen_by]):
        state.best = {"step": done, chosen_by: scores[chosen_by]}
    return scores
