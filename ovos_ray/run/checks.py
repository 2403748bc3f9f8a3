"""Combinations of settings that cannot mean what they say are refused before anything is computed."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ovos_ray.config import INITS, ExperimentConfig, TrainConfig, flatten
from ovos_ray.config.roles import check_ranges
from ovos_ray.config.strategies import NETWORKS, NetworkFacts, check_strategy
from ovos_ray.errors import ConfigError, DataError, WeightsError
from ovos_ray.paths import checked_name
from ovos_ray.run.resume import check_segment
from ovos_ray.track.servers import refuse_secrets, require_store

if TYPE_CHECKING:
    from ovos_ray.data.folders.open import DatasetFolder

__all__ = ["check_backward", "check_config", "check_settings", "check_validation"]


def check_config(config: ExperimentConfig) -> None:
    """Checks what types do not: ranges, combinations, and that what the configuration names is there.

    Raises:
        ConfigError: Names the settings and the way around.
        WeightsError: The weights to start from are not there.
        DataError: Shards or a split cannot be read.
    """
    from ovos_ray.data.clips.curricula import is_static_step, max_skip_at
    from ovos_ray.data.clips.plan import check_split
    from ovos_ray.evaluate.evaluation import open_scored
    from ovos_ray.networks.remote_weights import weights_exist

    check_settings(config)
    data = config.data
    # Both say what is wrong with a curriculum at whatever step they are asked for.
    max_skip_at(data.max_skip, 0, config.train.steps)
    is_static_step(data.static_share, config.seed, 0, config.train.steps)
    if data.static_share and data.source == "static":
        raise ConfigError(
            "data.static_share mixes static clips into those of videos, and data.source=static has no others",
            "leave one of them out",
        )
    check_split(data.batch_size, config.train.num_workers)
    _check_elastic(config.train)
    needs_labels = [key for key in ("clip_merging", "time_reversal") if getattr(data, key)]
    if needs_labels and (not config.method.needs_all_labels or data.source == "static"):
        keys = " and ".join(f"data.{key}" for key in needs_labels)
        raise ConfigError(
            f"{keys} need a label on every frame of a video, which one-shot training and static images do not have",
            "set " + " ".join(f"data.{key}=0" for key in needs_labels) + ", or method.name=supervised on videos",
        )
    init = config.network.init
    if init not in INITS and config.pretrain is None and not weights_exist(init):
        raise WeightsError(
            f"there is no weights file {init}",
            "give its path or URI: network.init=FILE.pth, an official release or a run's network.safetensors",
        )
    _check_labels(config)
    validation = config.validation
    if validation.source is not None:
        try:
            open_scored(validation.source, validation.layout, validation.split, num_videos=validation.num_videos)
        except DataError as error:
            remedy = error.remedy or "set validation.split to one that is there"
            key = "validation.root" if validation.root else "validation.shards"
            raise DataError(f"{key}: {error.message}", remedy) from error
    check_validation(config)
    check_segment(config)


def check_settings(config: ExperimentConfig) -> None:
    """Checks what can be known of a configuration before its data is there: for `ovos-ray show`.

    Raises:
        ConfigError: A value is out of range, or the method cannot train the network.
        WeightsError: The network has no such initial weights.
    """
    check_ranges(ExperimentConfig, flatten(config))
    checked_name(config.name, "run", "name=", nested=True)
    refuse_secrets(config.tracking_uri)
    require_store(config.tracking_uri)
    for part, chosen in (("validation", config.validation), ("evaluation", config.evaluation)):
        if chosen.root and chosen.shards:
            raise ConfigError(
                f"{part}.root = {chosen.root} and {part}.shards = {chosen.shards}: a split is read from one place",
                f"leave one of them out: {part}.root=none or {part}.shards=none",
            )
    check_backward(config)
    network = config.network
    if network.init == "imagenet" and config.pretrain is None and not _facts(network.name).imagenet:
        raise WeightsError(
            f"network.init = 'imagenet': there are no ImageNet weights for {network.name}",
            "set network.init=random, or auto, which takes them where there are some",
        )


def check_backward(config: ExperimentConfig) -> None:
    """Checks that the network is known, and that its method can train it.

    Raises:
        ConfigError: See `networks.build` and `check_strategy`.
    """
    network = _facts(config.network.name)
    if config.method.name == "one_shot":
        check_strategy(network.family, network.recurrent, config.method, config.data.clip_length)


@functools.lru_cache
def _facts(name: str) -> NetworkFacts:
    if name in NETWORKS:
        return NETWORKS[name]
    from ovos_ray import networks

    network = networks.structure(name)
    return NetworkFacts(type(network).__name__, network.recurrent, networks.has_imagenet(network))


def _check_elastic(train: TrainConfig) -> None:
    if not 1 <= train.fewest_workers <= train.num_workers:
        raise ConfigError(
            f"train.min_workers = {train.min_workers} is out of range",
            f"give 1 to train.num_workers = {train.num_workers}, the most workers there will be",
        )


def _check_labels(config: ExperimentConfig) -> None:
    if not config.method.needs_all_labels or config.data.source == "static":
        return
    from ovos_ray.data.shards.index import ShardIndex

    method = config.method
    needs = "method.name = 'supervised'" if method.name == "supervised" else f"method.reference = {method.reference!r}"
    for folder in config.data.shards:
        index = ShardIndex.shared(folder)
        if index.labels != "all":
            raise ConfigError(
                f"{needs} needs a label on every frame, {folder} holds one a video",
                f"pack {index.dataset} with --labels all",
            )


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
    from ovos_ray.data.folders.open import open_dataset
    from ovos_ray.evaluate.evaluation import benchmarks
    from ovos_ray.run.labels import validated

    validation = config.validation
    if not (validation.select_best if chooses is None else chooses):
        return
    folder, names = validated(validation)
    if folder is None or not validation.every:
        raise ConfigError(
            "the best checkpoint or trial is to be chosen, but there are no scores during training to choose by",
            "set validation.root (or validation.shards) to a labelled split that is not reported, and "
            "validation.every to a number of steps",
        )
    for benchmark in benchmarks(config.evaluation):
        reported = open_dataset(benchmark.root, layout=benchmark.layout)
        reported_names = reported.video_names(benchmark.split)
        packed = "shards" in (folder.layout, reported.layout)
        both = _masks(folder, validation.split, names, packed)
        both &= _masks(reported, benchmark.split, reported_names, packed)
        if both:
            raise ConfigError(
                f"validation chooses by {len(both)} masks that are reported too, such as {min(both)}",
                "hold out other videos for validation.split: scores chosen by the reported split are too good",
            )


def _masks(folder: DatasetFolder, split: str, names: Iterable[str], packed: bool) -> set[str]:
    """Returns names by which masks can be compared: their files or, where some are packed, video and frame."""
    if packed:
        labels = ((name, index) for name in names for index in folder.outline(split, name)[1])
        return {f"{folder.home}: {name}, frame {index}" for name, index in labels}
    return {str(path.resolve()) for name in names for path in folder.video(split, name).masks.values()}
