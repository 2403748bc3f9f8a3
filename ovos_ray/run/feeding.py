"""Whether the clips of a run are decoded as fast as its workers train them."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovos_ray.config import ExperimentConfig
from ovos_ray.data.clips.decode import ClipDecoder
from ovos_ray.data.clips.plan import Plan
from ovos_ray.run.estimate import Cost
from ovos_ray.run.resources import decoders_of_worker, workers_that_fit

__all__ = ["Feeding", "clip_seconds"]

_CLIPS, _MOST_S = 8, 2.0


@dataclass(frozen=True)
class Feeding:
    """What a worker trains, and what is decoded for it. An estimate: work of others on the same CPUs is not in it.

    Attributes:
        clip_s: Processor time of a clip, from its place in the shards to a sample.
        clips: A worker's clips of a step.
        decoders: Clips decoded at a time beside a worker, on as many CPUs.
        at_least: Whether there may be more of them, as its node is not known.
        step_s: How long a step takes; None: not known.
        chosen: Whether `data.decode_cpus` says how many decoders there are.
    """

    clip_s: float
    clips: int
    decoders: int
    at_least: bool
    step_s: float | None
    chosen: bool = False

    @classmethod
    def of(
        cls, config: ExperimentConfig, clip_s: float, cost: Cost | None, nodes: Sequence[Mapping[str, float]]
    ) -> Feeding:
        """Returns what is known of a run.

        Args:
            config: Of the run.
            clip_s: From `clip_seconds`.
            cost: Of the run; its steps count only where they were measured on what the run trains on.
            nodes: `CPU` and `GPU` of each that it may run on; none: not known, so that a worker has what it holds.
        """
        train = config.train
        fit = [decoders_of_worker(config, node) for node in nodes if workers_that_fit(train, node)]
        decoders = min(fit, default=config.data.decode_cpus or max(1, math.floor(train.cpus_per_worker)))
        chosen = config.data.decode_cpus is not None
        measured = cost is not None and cost.device.startswith("cuda") == bool(train.gpus_per_worker)
        step_s = cost.seconds / train.steps if cost is not None and measured else None
        clips = train.clips_per_worker(config.data.batch_size)
        return cls(clip_s, clips, decoders, not fit and not chosen, step_s, chosen)

    @property
    def decoded_per_s(self) -> float:
        """Clips a second, where k decoders and the thread that trains share k CPUs evenly."""
        return self.decoders**2 / (self.decoders + 1) / self.clip_s

    @property
    def shortest_step_s(self) -> float:
        """A worker waits for data where its step takes less."""
        return self.clips / self.decoded_per_s

    @property
    def decoders_needed(self) -> int | None:
        """The fewest decoders that feed the worker, by the same rule: k² / (k + 1) CPUs are what a step takes."""
        if self.step_s is None:
            return None
        cpus = self.clips * self.clip_s / self.step_s
        return max(1, math.ceil((cpus + math.sqrt(cpus**2 + 4 * cpus)) / 2 - 1e-9))


def clip_seconds(config: ExperimentConfig) -> float:
    """Decodes a few clips from all over a run, in two seconds at most, and returns the processor time of one.

    Waiting for a disk or a bucket is not in it. Nothing is kept in `data.cache`.

    Raises:
        DataError: A clip cannot be decoded, or there is none.
        ConfigError: The data's settings do not fit its shards.
        StorageError: The shards cannot be reached.
    """
    data = dataclasses.replace(config.data, cache=None, on_bad_row="error")
    plan = Plan.load(data, seed=config.seed, steps=config.train.steps)
    decoder = ClipDecoder.of(dataclasses.replace(config, data=data))
    last, began, taken = config.train.steps * data.batch_size - 1, time.perf_counter(), list[float]()
    for number in range(_CLIPS + 1):
        clip, before = plan.clip(last * number // _CLIPS), time.process_time()
        decoder(clip)
        taken.append(time.process_time() - before)
        if number and time.perf_counter() - began > _MOST_S:
            break
    return statistics.fmean(taken[1:])  # the first one opens files
