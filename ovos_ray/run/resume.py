"""Where a run goes on: from its own newest checkpoint or, a segment without one, from where its parent stopped."""

from __future__ import annotations

from typing import Any

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.digest import digest, unpinned
from ovos_ray.config.stored import read_stored
from ovos_ray.errors import CheckpointError, ConfigError
from ovos_ray.train.run_folder import RunFolder

__all__ = ["Start", "check_segment", "marked_step", "resume_state", "resume_step", "shared_state"]


class Start:
    """Where a run goes on, and its state there: looked for, checked and read in one go.

    Attributes:
        step: Optimiser steps done.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        found = RunFolder.of(config).checkpoints().load_latest()
        self._state: dict[str, Any] | None
        self.step, self._state = (config.start_step, None) if found is None else found

    def take(self) -> dict[str, Any] | None:
        """Returns the state and keeps none of it; None: it has not been read yet."""
        state, self._state = self._state, None
        return state


def resume_step(config: ExperimentConfig) -> int:
    """Returns the optimiser step from which a run, begun or not, goes on."""
    return RunFolder.of(config).checkpoints().latest() or config.start_step


def marked_step(config: ExperimentConfig) -> int:
    """Returns what `resume_step` does unless a checkpoint is damaged, without reading any: enough for a message."""
    return RunFolder.of(config).checkpoints().newest_marked() or config.start_step


def resume_state(config: ExperimentConfig, step: int) -> dict[str, Any]:
    """Loads the checkpoint from which a run goes on at a step above 0, onto the CPU.

    Raises:
        CheckpointError: It is absent or damaged, or the parent has computed something else than the segment was made
            for.
    """
    segment = config.segment
    if segment is None or step > segment.start_step:
        return RunFolder.of(config).checkpoints().load(step)
    parent = RunFolder.at(config.storage, segment.parent)
    state = parent.checkpoints().load(step)
    held = digest(unpinned(read_stored(state["config"], state.get("schema", 1))))
    if held != segment.parent_digest:
        raise CheckpointError(
            f"{parent.storage.folder} holds a run with digest {held}, segment.parent_digest is {segment.parent_digest}",
            "give the study another name=…, or remove its folder",
        )
    return state


def shared_state(config: ExperimentConfig, step: int, stored: dict[str, Any] | None, rank: int) -> dict[str, Any]:
    """Returns the state from which several ranks go on; rank 0 reads and checks it, and sends it to the others.

    Read by each, a checkpoint of 600 MiB would be 40 GiB for 64 ranks that start again from a bucket.

    Args:
        config: Of the run.
        step: Where it goes on, above 0.
        stored: What rank 0 may have read already.
        rank: Which of the ranks this is; they call this together.

    Raises:
        CheckpointError: See `resume_state`; on rank 0, which ends the others.
    """
    import torch.distributed

    state = [(resume_state(config, step) if stored is None else stored) if rank == 0 else {}]
    torch.distributed.broadcast_object_list(state, src=0)
    return state[0]


def check_segment(config: ExperimentConfig) -> None:
    """Checks that a segment lies within its run and says what it starts from.

    Raises:
        ConfigError: It does not.
    """
    segment = config.segment
    if segment is None:
        return
    if not 0 <= segment.start_step < segment.stop_step <= config.train.steps:
        raise ConfigError(
            f"segment.start_step = {segment.start_step}, segment.stop_step = {segment.stop_step} is not a part of "
            f"train.steps = {config.train.steps}",
            "give 0 <= start_step < stop_step <= train.steps",
        )
    if bool(segment.parent and segment.parent_digest) != bool(segment.start_step):
        raise ConfigError(
            f"segment.start_step = {segment.start_step} and segment.parent = {segment.parent!r} do not go together",
            "name parent and parent_digest where a segment starts after step 0, and only there",
        )
    if config.validation.select_best:
        raise ConfigError(
            "validation.select_best chooses a checkpoint of a whole run, a segment only has those of its own steps",
            "set validation.select_best=false",
        )
