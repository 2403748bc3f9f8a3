"""A finished run goes on to more steps: a new run, which begins with the checkpoint that the finished one ended with.

It is a segment (`SegmentConfig`) of a run of the new length. Schedules that follow fractions of `train.steps` continue
where that one has them, so that the outcome is not that of the longer run from its beginning; the digest of what came
before is part of this one's, and the two are never taken for the same.
"""

from __future__ import annotations

import dataclasses

from ovos_ray.config import ExperimentConfig, SegmentConfig, override
from ovos_ray.config.digest import differences, digest, unpinned
from ovos_ray.errors import CheckpointError, ConfigError
from ovos_ray.train.run_folder import RunFolder

__all__ = ["extended"]


def extended(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the configuration of the run that continues a finished one.

    Args:
        config: The finished run's, with a higher `train.steps`; as `pretraining.pin` returns it.

    Raises:
        ConfigError: No run of this name has finished, or `train.steps` is not above its own.
        CheckpointError: The finished run differs in other settings, too, or has no checkpoint left.
    """
    folder = RunFolder.of(config)
    where = folder.storage.folder
    if not folder.claimed or folder.result() is None:
        raise ConfigError(
            f"{where} holds no finished run to go on from",
            "leave --extend out: the same command continues a run that is not finished",
        )
    there = folder.config()
    steps = there.train.steps
    if config.train.steps <= steps:
        raise ConfigError(
            f"train.steps = {config.train.steps}, and {where} has {steps} already", f"add train.steps={2 * steps}"
        )
    same = dataclasses.replace(override(config, {"train.steps": steps}), segment=there.segment)
    if other := differences(there, same):
        raise CheckpointError(
            f"{where} differs in more than its length: {'; '.join(other[:5])}", "set them as there, or train anew"
        )
    if folder.checkpoints().latest() != steps:
        raise CheckpointError(f"{where} has no checkpoint of step {steps}", "train it anew, under another name=…")
    segment = SegmentConfig(
        start_step=steps,
        stop_step=config.train.steps,
        parent=config.name,
        parent_digest=digest(unpinned(there)),
    )
    return dataclasses.replace(config, name=f"{config.name}-to-{config.train.steps}", segment=segment)
