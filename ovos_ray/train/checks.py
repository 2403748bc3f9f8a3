"""Combinations of settings that cannot mean what they say are refused before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ovos_ray.config import INITS, ExperimentConfig
from ovos_ray.data.layout import open_dataset
from ovos_ray.data.video import Video
from ovos_ray.errors import ConfigError, WeightsError
from ovos_ray.evaluate.evaluation import benchmarks
from ovos_ray.train.budget import validated_videos

__all__ = ["check_config", "check_validation"]


def check_config(config: ExperimentConfig) -> None:
    """Checks what no single setting shows.

    Raises:
        ConfigError: Names the settings and the way around.
        WeightsError: The weights to start from are not there.
        DataError: A split that must be compared with another cannot be read.
    """
    data = config.data
    needs_labels = [key for key in ("clip_merging", "time_reversal") if getattr(data, key)]
    if needs_labels and (config.method.name != "supervised" or data.source == "static"):
        keys = " and ".join(f"data.{key}" for key in needs_labels)
        raise ConfigError(
            f"{keys} need a label on every frame of a video, which one-shot training and static images do not have",
            "set " + " ".join(f"data.{key}=0" for key in needs_labels) + ", or method.name=supervised on videos",
        )
    init = config.network.init
    if init not in INITS and config.pretrain is None and not Path(init).is_file():
        raise WeightsError(
            f"there is no weights file {init}",
            "give its path: network.init=FILE.pth, an official release or a run's network.safetensors",
        )
    check_validation(config)


def check_validation(config: ExperimentConfig, *, chooses: bool | None = None) -> None:
    """Checks that a split that chooses something is not the split that is reported.

    Args:
        config: Of the run.
        chooses: Whether validation scores choose: a checkpoint, or the trials of a study that are stopped early. None:
            as `validation.select_best` says.

    Raises:
        ConfigError: It is, in part or as a whole, or there is nothing to choose by.
        DataError: A split cannot be read.
    """
    validation = config.validation
    if not (validation.select_best if chooses is None else chooses):
        return
    if validation.root is None or not validation.every:
        raise ConfigError(
            "the best checkpoint or trial is to be chosen, but there are no scores during training to choose by",
            "set validation.root to a labelled split that is not reported, and validation.every to a number of steps",
        )
    both = _masks(validated_videos(validation)) & _masks(_reported(config))
    if both:
        raise ConfigError(
            f"validation chooses by {len(both)} masks that are reported too, such as {min(both)}",
            "hold out other videos for validation.split: scores chosen by the reported split are too good",
        )


def _reported(config: ExperimentConfig) -> Iterable[Video]:
    for benchmark in benchmarks(config.evaluation):
        yield from open_dataset(benchmark.root, layout=benchmark.layout).videos(benchmark.split)


def _masks(videos: Iterable[Video]) -> set[Path]:
    return {path.resolve() for video in videos for path in video.masks.values()}
