"""What a run says while it goes on, to its tracker, its watcher and whoever schedules it; one rank speaks for all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import DataError, ResourceError, StorageError
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.run.cycle_strip import cycle_strip
from ovos_ray.run.labels import labels_of_run
from ovos_ray.run.pretraining import pretraining_tags
from ovos_ray.run.request import RunRequest, spool_folder
from ovos_ray.run.snapshots import keep_snapshot
from ovos_ray.run.state import RunState
from ovos_ray.track.sink import Sink
from ovos_ray.track.system import SystemMeter
from ovos_ray.train.checkpoint_writer import CheckpointWriter
from ovos_ray.train.run_folder import RunFolder

__all__ = ["RunLog", "open_sink"]

_WARNED_EVERY_S = 10.0
"""Between checkpoints of a process that may end any moment; a spot node is taken away 30 to 120 s after the notice."""


def open_sink(request: RunRequest, tags: Mapping[str, Any] | None = None) -> Sink:
    """Opens the MLflow run of a request, new or known."""
    config = request.config
    return Sink.open(
        config.tracking_uri,
        request.experiment,
        request.run_key,
        name=config.name,
        parent_key=request.parent_key,
        tags={**request.tags, **(tags or {})},
        spool=spool_folder(config),
    )


class RunLog:
    """Tells of a run and keeps its checkpoints and snapshots; of all ranks, only the first one does so.

    A launch that begins at the first step also logs configuration and data.
    """

    def __init__(self, request: RunRequest, *, rank: int, start_step: int, device: torch.device) -> None:
        self._request, self._config, self._device = request, request.config, device
        self._first = rank == 0
        self._num_skipped = 0
        self._without_graphs: str | None = None
        self.sink = open_sink(request, pretraining_tags(self._config)) if self._first else Sink(None)
        if self._first and start_step == self._config.start_step:
            self._describe()
        self._system = SystemMeter(device)
        store = RunFolder.of(self._config).checkpoints(self._config.train.keep_checkpoints)
        self._writer = CheckpointWriter(store, start_step, before=request.lease.look)
        self._written_at, self._warning = time.monotonic(), ""

    def _describe(self) -> None:
        config, sink = self._config, self.sink
        sink.log_config(config)
        indices = [ShardIndex.shared(folder) for folder in config.data.shards]
        for folder, index in zip(config.data.shards, indices, strict=True):
            sink.log_dataset(index.dataset, index.digest, source=folder, profile=index.budget.as_dict())
        labels = labels_of_run(config)
        sink.set_tags(
            {
                "ovos.dataset_digest": ",".join(index.digest for index in indices),
                "ovos.label_percent": f"{labels.percent:.2f}",
                **{f"ovos.labels.{name}": number for name, number in labels.as_dict().items()},
                "ovos.checkpoints": RunFolder.of(config).checkpoints().storage.folder,
            }
        )

    def close(self) -> None:
        """Waits for the checkpoint under way and closes the tracker, without ending its run: that may go on later."""
        self._writer.close()
        self.sink.close()

    def require_held(self, *, look: bool = False) -> None:
        """Makes sure that this run still holds its folder, by what was last seen or, with `look`, by looking again.

        Raises:
            HeldError: Another process has taken it over.
        """
        if self._first and look:
            self._request.lease.look()
        elif self._first:
            self._request.lease.check()

    def say(self, step: int, event: str) -> None:
        """Tells the watcher of an event."""
        if self._first:
            self._request.post(step, event=event)

    def changed_code(self, step: int, change: str) -> None:
        """Says that a run goes on with other code than it was begun with."""
        self.sink.set_tags({"ovos.code_changed": f"at step {step}: {change}"[:400]})
        self.say(step, f"goes on with other code: {change}")

    def interval(self, step: int, record: Mapping[str, float], num_bad_samples: int) -> None:
        """Logs the means of a logging interval, as `IntervalMeter.flush` returns them."""
        if not self._first:
            return
        if not self._writer.busy:
            self._settle()
        values = dict(record)
        if self._device.type == "cuda":
            values["train/gpu_memory_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        if num_bad_samples:
            values["train/bad_samples"] = float(num_bad_samples)
        metrics = {name: value for name, value in values.items() if name.startswith("train/")}
        self.sink.log_metrics(metrics | self._system.read(), step)
        self._request.post(step, **values)

    def skipped_steps(self, steps: Sequence[int]) -> None:
        """Keeps a list of the steps whose loss or gradient was not finite: an artifact, written anew when it grows.

        The positions are those of the global batch; `plan.clip(position)` says which clip that is.
        """
        if not self._first or len(steps) == self._num_skipped:
            return
        self._num_skipped, size = len(steps), self._config.data.batch_size
        lines = ["step,first_position,last_position", *(f"{s},{s * size},{(s + 1) * size - 1}" for s in steps)]
        self.sink.log_artifact("\n".join([*lines, ""]).encode(), "skipped_steps.csv")

    def without_graphs(self, step: int, why: str | None) -> None:
        """Says, whenever it changes, why roll-outs are computed without the CUDA graphs that were asked for."""
        if why != self._without_graphs:
            self._without_graphs = why
            self.say(step, f"roll-outs without a CUDA graph, more slowly: {why}")

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Logs the scores of a validation."""
        self.sink.log_metrics(scores, step)
        self.say(step, "  ".join(f"{name} {value:.1f}" for name, value in scores.items()))

    def checkpoint_is_due(self, step: int, warning: str) -> bool:
        """Whether one is due besides those of `train.checkpoint_every`: by the clock, or as the process may end soon.

        Args:
            step: Optimiser steps done.
            warning: Why this process may end soon; empty: no reason is known. Once there is one, checkpoints are due
                every few seconds.
        """
        if not self._first or self._writer.busy:
            return False
        every_s, since_s = self._config.train.checkpoint_every_s, time.monotonic() - self._written_at
        if warning:
            news, self._warning = warning != self._warning, warning
            if news:
                self.say(step, f"{warning}; a checkpoint is written now and every few seconds")
            return news or since_s >= _WARNED_EVERY_S
        return bool(every_s) and since_s >= every_s

    def checkpoint(self, state: RunState, step: int, *, must_succeed: bool) -> None:
        """Begins to write a checkpoint, and waits for it where it must succeed.

        Where the storage fails and the next interval may try again, that is only said.

        Raises:
            ResourceError: There is no room, and it must succeed.
            StorageError: The storage is out of reach, and it must succeed.
            HeldError: Another process has taken the run over.
            Exception: What went wrong otherwise, also with the checkpoint before.
        """
        if not self._first:
            return
        self._settle()
        keep_step = None if state.best is None else int(state.best["step"])
        goes_on = self._writer.start(step, state.content(step), keep_step=keep_step)
        self._written_at = time.monotonic()
        if must_succeed:
            try:
                self._writer.wait()
            except StorageError:  # it may be back when the run is started again
                raise
            except OSError as error:
                raise ResourceError(
                    f"the checkpoint of step {step} could not be written: {error}",
                    f"make room in {self._config.storage} and run the same command again: it goes on from the last one",
                ) from error
        elif not goes_on:
            self._settle()

    def last_checkpoint(self, state: RunState, step: int) -> None:
        """Writes down a run whose process is ending, with what is known; its next launch goes on from there."""
        if not self._first or step == self._writer.step:
            return
        try:
            self.checkpoint(state, step, must_succeed=True)
        except (ResourceError, StorageError) as error:
            self.say(step, str(error))
        else:
            self.say(step, f"told to end; the checkpoint of step {step} is written")

    def _settle(self) -> None:
        """Waits for the checkpoint under way, and says what the storage did not take."""
        try:
            self._writer.wait()
        except OSError as error:
            self.say(self._writer.step, f"checkpoint not written ({error}); the next interval tries again")

    def snapshot(self, network: VOSNetwork, step: int) -> None:
        """Keeps the masks of a few frames; a storage that fails or a damaged picture stops no run for that."""
        if not self._first:
            return
        folder = RunFolder.of(self._config).storage / "snapshots"
        try:
            strips = keep_snapshot(network, self._config, step, folder)
        except (OSError, DataError) as error:
            self.say(step, f"snapshot not written ({error})")
            return
        self.sink.set_tags({"ovos.snapshots": folder.folder})
        for video, strip in strips.items():
            self.sink.log_artifact(strip, f"figures/snapshots/{video}/step-{step:08d}.jpg")

    def cycle(self, network: VOSNetwork, batch: Mapping[str, Tensor], step: int) -> None:
        """Keeps the last clip there and back as a picture, which the report shows."""
        if self._first and (strip := cycle_strip(network, batch, self._config, step)) is not None:
            picture, words = strip
            self.sink.log_artifact(picture, "figures/cycle.webp")
            self.sink.set_tags({"ovos.cycle": words})
