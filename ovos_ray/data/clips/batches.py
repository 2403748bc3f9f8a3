"""The same batches as `on_ray.stream`, decoded in this process: for tests, benchmarks and studies without Ray."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from ovos_ray.data.clips.columns import batch_of
from ovos_ray.data.clips.decode import ClipDecoder, stack
from ovos_ray.data.clips.plan import Plan

__all__ = ["LocalStream"]


@dataclass
class LocalStream:
    """Streams one rank's batches of a plan; one step is decoded ahead by a thread.

    Attributes:
        plan: The clips.
        decoder: What turns them into samples.
        start_step: The step of the first batch.
        stop_step: The step before which it ends; None: the plan's last.
        problems: Unreadable samples met so far.
    """

    plan: Plan
    decoder: ClipDecoder
    start_step: int = 0
    rank: int = 0
    world_size: int = 1
    stop_step: int | None = None
    problems: list[tuple[int, str]] = field(default_factory=list)

    def batches(self) -> Generator[dict[str, torch.Tensor]]:
        """Yields micro-batches as `on_ray.stream.RankStream.batches` does.

        Raises:
            DataError: A row cannot be read.
        """
        stop = self.plan.steps if self.stop_step is None else self.stop_step
        with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
            ahead = pool.submit(self._batch, self.start_step)
            for step in range(self.start_step, stop):
                batch = ahead.result()
                if step + 1 < stop:
                    ahead = pool.submit(self._batch, step + 1)
                yield batch

    def _batch(self, step: int) -> dict[str, torch.Tensor]:
        samples = [self.decoder(clip) for clip in self.plan.clips(step, self.rank, self.world_size)]
        self.problems += [(sample.position, sample.problem) for sample in samples if sample.problem]
        return batch_of(stack(samples))
