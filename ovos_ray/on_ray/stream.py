"""Ray Data executes slices of the plan: each rank streams its own slice, in order, from its own start step.

`streaming_split` would deal whole blocks to whichever rank asks first, so that batches change with the number of
workers. Here a rank's blocks are computed from its positions, and the consumer checks that it received them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ovos_ray.config import DataConfig, ExperimentConfig
from ovos_ray.data.clips.batches import batch_of, decode_batch
from ovos_ray.data.clips.plan import Plan, slice_for_rank
from ovos_ray.errors import DataError
from ovos_ray.on_ray.private import RestingScheduler
from ovos_ray.on_ray.stall import patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ovos_ray.data.clips.decode import ClipDecoder

__all__ = ["RankStream", "StreamSpec", "load_plan", "stream_spec"]

# Blocks large enough that a task's overhead (milliseconds) vanishes, small enough to start early and to schedule well.
_BLOCK_BYTES = 32 * 2**20
_MAX_BLOCK_CLIPS = 16
# One Ray Data execution plans its tasks up front; segments bound that list for runs of any length (0.4 s each).
_SEGMENT_STEPS = 4096


@dataclass(frozen=True)
class StreamSpec:
    """What decides the samples of a run; small, and picklable to every task.

    Attributes:
        data: The data part of the configuration.
        seed: The run seed.
        steps: Optimiser steps of the whole run.
        all_labels: Whether labels of all frames are read (fully supervised).
        stop_step: The step before which the stream ends; None: after the last one.
        further_labels: Whether those of further frames are read where there are some.
    """

    data: DataConfig
    seed: int
    steps: int
    all_labels: bool
    stop_step: int | None = None
    further_labels: bool = False


def stream_spec(config: ExperimentConfig) -> StreamSpec:
    """Returns what decides the samples of a configuration."""
    method = config.method
    return StreamSpec(
        config.data,
        config.seed,
        config.train.steps,
        method.needs_all_labels,
        config.stop_step,
        method.compares_further_labels,
    )


@functools.lru_cache(maxsize=4)
def load_plan(spec: StreamSpec) -> Plan:
    """Builds the plan from the shards' indices; cached, since every task of a process asks for the same one."""
    return Plan.load(spec.data, seed=spec.seed, steps=spec.steps)


@functools.lru_cache(maxsize=4)
def _decoder(data: DataConfig, all_labels: bool, further_labels: bool) -> ClipDecoder:
    from ovos_ray.data.clips.decode import ClipDecoder

    # A bad row travels as data: Ray hands on the text of an exception, but neither its kind nor its remedy.
    data = dataclasses.replace(data, on_bad_row="skip")
    return ClipDecoder(data, all_labels=all_labels, further_labels=further_labels)


def _decode_block(
    block: Mapping[str, Any], *, spec: StreamSpec, rank: int, world_size: int, steps: range, steps_per_block: int
) -> dict[str, Any]:
    """Decodes one rank's clips of `steps_per_block` steps; the row of the block is its number. Runs as a Ray task."""
    plan, decoder = load_plan(spec), _decoder(spec.data, spec.all_labels, spec.further_labels)
    first = int(block["id"][0]) * steps_per_block
    block_steps = steps[first : first + steps_per_block]
    return decode_batch(decoder, [clip for step in block_steps for clip in plan.clips(step, rank, world_size)])


@dataclass
class RankStream:
    """The batches of one rank from one step on. Made in the worker: Ray Train's `datasets` would start another process.

    Attributes:
        spec: What decides the samples.
        rank: Whose part of the global batch it is.
        world_size: How many workers share the global batch.
        start_step: The step of the first batch; the worker resumes from the checkpoint of exactly this step.
        num_decoders: Clips decoded at a time, beside the worker, on its node.
        patience_s: How long a batch is waited for; 0: for ever.
        problems: Unreadable samples met so far, with `data.on_bad_row="skip"`.
    """

    spec: StreamSpec
    rank: int
    world_size: int
    start_step: int
    num_decoders: int = 1
    patience_s: float = 0.0
    problems: list[tuple[int, str]] = field(default_factory=list)

    def batches(self) -> Generator[dict[str, torch.Tensor]]:
        """Yields one batch a step (`batch_of`), until the last step of the run or of its segment.

        Raises:
            DataError: A row cannot be read, or samples arrive out of order.
            ResourceError: A batch did not come in time; see `stall.patiently`.
        """
        size = len(slice_for_rank(0, self.spec.data.batch_size, self.rank, self.world_size))
        stop = self.spec.steps if self.spec.stop_step is None else self.spec.stop_step
        for segment in range(self.start_step, stop, _SEGMENT_STEPS):
            steps = range(segment, min(segment + _SEGMENT_STEPS, stop))
            batches = self._dataset(steps).iter_batches(batch_size=size, prefetch_batches=2, batch_format="numpy")
            what = functools.partial(self._name_batch, segment)
            for step, columns in zip(steps, patiently(iter(batches), self.patience_s, what), strict=True):
                yield self._checked(step, columns)

    def _name_batch(self, first: int, number: int) -> str:
        return f"the batch of step {first + number} for rank {self.rank}"

    def _dataset(self, steps: range) -> ray.data.Dataset:
        data = self.spec.data
        clip_bytes = data.clip_length * 3 * data.crop_size**2
        block_clips = max(1, min(_MAX_BLOCK_CLIPS, _BLOCK_BYTES // clip_bytes))
        steps_per_block = max(1, block_clips * self.world_size // data.batch_size)
        num_blocks = math.ceil(len(steps) / steps_per_block)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        if RestingScheduler not in context.custom_execution_callback_classes:
            context.custom_execution_callback_classes.append(RestingScheduler)
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        decode = functools.partial(
            _decode_block,
            spec=self.spec,
            rank=self.rank,
            world_size=self.world_size,
            steps=steps,
            steps_per_block=steps_per_block,
        )
        # The numbers are made here, for `ray.data.range` makes them in tasks that wait for a free CPU.
        blocks = ray.data.from_items([{"id": number} for number in range(num_blocks)], override_num_blocks=num_blocks)
        return self._decoded(blocks, decode)

    def _decoded(self, blocks: ray.data.Dataset, decode: Callable[..., dict[str, Any]]) -> ray.data.Dataset:
        # The tasks ask for no CPU: Ray Data deals those that are free by integer division, node by node, over all
        # executions of the cluster, so that with many ranks or trials each has a share of none and decodes one block
        # at a time, only while its worker is idle. It would also ask an autoscaler for nodes with GPUs to decode on.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return blocks.map_batches(
            decode, batch_size=None, num_cpus=0, concurrency=self.num_decoders, scheduling_strategy=here
        )

    def _checked(self, step: int, columns: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        data = self.spec.data
        expected = slice_for_rank(step, data.batch_size, self.rank, self.world_size)
        received = columns["position"].tolist()
        if received != list(expected):
            raise DataError(
                f"step {step}, rank {self.rank}: positions {received} arrived where {list(expected)} were expected",
                "this is a defect of the stream; resume the run and report it",
            )
        for position, problem in zip(received, columns["problem"].tolist(), strict=True):
            if problem and data.on_bad_row == "error":
                raise DataError(
                    f"position {position}, {problem}",
                    "`ovos-ray verify SHARDS` lists every bad row; data.on_bad_row=skip goes on without them",
                )
            if problem:
                self.problems.append((position, problem))
        # Ray hands out read-only views of its object store; torch wants memory of its own.
        return batch_of(columns, copy=True)
