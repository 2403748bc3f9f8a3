"""The program from Python: what the verbs of the command line do, to the same bytes, for notebooks and scripts.

    import ovos_ray

    ovos_ray.pack("folder", root="videos", out="shards")
    run = ovos_ray.train("trainables.one_shot", {"data.shards": "shards", "train.steps": 200})
    masks = list(run.predict("clip.mp4", "mask.png"))
    ovos_ray.sweep("search_spaces.smoke", {"data.shards": "shards"}).table()

A script that calls `sweep` keeps it under `if __name__ == "__main__":`, since trials run in processes of their own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.config.recipes import make
from ovos_ray.data.folders.base import files_in
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import decode_mask
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import ConfigError
from ovos_ray.evaluate.infer.directions import predict_both_ways
from ovos_ray.evaluate.infer.inference import Image, InferenceSettings, Mask, NetworkPredictor
from ovos_ray.evaluate.infer.tracker import best_device
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.packing.pack import pack as pack_folder
from ovos_ray.run.here import fit_here
from ovos_ray.run.prepare import request_for
from ovos_ray.run.pretraining import pin
from ovos_ray.run.progress import print_record
from ovos_ray.run.request import config_from, resolve
from ovos_ray.storage import Storage
from ovos_ray.study.expand import expand_study
from ovos_ray.study.here import run_plain
from ovos_ray.study.population import folders_of
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.study.status import read_run
from ovos_ray.study.summary import score_of
from ovos_ray.track.provenance import provenance_tags
from ovos_ray.train.load_network import load_network
from ovos_ray.train.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["Run", "Study", "load", "pack", "recipe", "sweep", "train"]

Overrides = Mapping[str, Any] | Sequence[str]
"""`{"train.steps": 500}`, or `["train.steps=500"]` as on the command line."""
Frames = str | Path | Iterable[Image]
"""A folder of frames, a video file, or (H, W, 3) uint8 RGB arrays."""
Masks = str | Path | Mask | Mapping[int, "str | Path | Mask"]
"""An indexed PNG or an (H, W) uint8 array of object ids for frame 0, or several by frame index."""


def recipe(source: str, overrides: Overrides = ()) -> ExperimentConfig:
    """Returns the configuration of a recipe of `ovos-ray ls`, or of a `.yaml` or `.json` file.

    Raises:
        ConfigError: There is none, or a setting does not exist.
    """
    return config_from(source, overrides)


def pack(dataset: str, root: str | Path, out: str | Path, *, layout: str = "auto", **options: Any) -> ShardIndex:
    """Packs a dataset folder into shards, as `ovos-ray pack` does.

    Args:
        dataset: A description or layout: `davis2017`, `folder`, ….
        root: The dataset's folder.
        out: Where the shards go.
        layout: Overrides the description's layout.
        **options: Of `ovos_ray.packing.pack.pack`: `labels`, `split`, `shortest_side`, `exclude`, `overwrite`, ….

    Raises:
        DataError: The folder cannot be used as it is.
    """
    return pack_folder(open_dataset(root, dataset, layout), out, **options)


def load(name: str | None = None, weights: str | Path | None = None) -> VOSNetwork:
    """Returns a network with weights, in evaluation mode, on the CPU.

    Args:
        name: Such as `xmem`, where the weights do not tell; or, alone, a model of `ovos-ray models`.
        weights: A run folder, safetensors, an official `.pth`, or a model of `ovos-ray models`.

    Raises:
        WeightsError: They are not there, damaged, or do not fit.
        ConfigError: Neither is given.
    """
    if weights is None:
        name, weights = None, name
    if weights is None:
        raise ConfigError("no weights are named", 'ovos_ray.load("xmem", "XMem.pth"), or a model of `ovos-ray models`')
    return load_network(weights, name)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where its files are.
        config: What it was trained with.
        values: Content of `result.json`.
    """

    folder: str
    config: ExperimentConfig
    values: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Returns the run of a folder.

        Raises:
            ConfigError: None has finished there.
        """
        found = RunFolder(Storage(str(folder)))
        values = found.result() if found.claimed else None
        if values is None:
            raise ConfigError(f"{folder}: no finished run", "give its folder, such as runs/one-shot-tiny, or train it")
        return cls(found.storage.folder, found.config(), values)

    @property
    def scores(self) -> Mapping[str, float]:
        """J&F and its parts, in percent; empty where nothing was scored."""
        scores: Mapping[str, float] = self.values["scores"]
        return scores

    def network(self) -> VOSNetwork:
        """Returns the trained network, in evaluation mode, on the CPU."""
        return load_network(self.folder)

    def predict(self, frames: Frames, mask: Masks, *, device: str | None = None, **settings: Any) -> Iterator[Mask]:
        """Yields the mask of every frame, (H, W) uint8 object ids, while frames are read.

        Args:
            frames: A folder, a video file, or arrays.
            mask: Of frame 0, or masks by frame index; frames before the first of them are predicted backwards from it.
            device: Such as `cuda`, `mps`, `cpu`; None: the best there is.
            **settings: Published settings to change, such as `memory_interval=3`.

        Raises:
            DataError: A file cannot be read, or a mask has another size than the frames.
        """
        given = mask if isinstance(mask, Mapping) else {0: mask}
        masks = {t: decode_mask(Path(one)) if isinstance(one, str | Path) else one for t, one in given.items()}
        network = self.network().to(device or best_device())
        return predict_both_ways(
            NetworkPredictor(network, InferenceSettings.of(network, **settings)), _images(frames), masks
        )


def _images(frames: Frames) -> Iterable[Image]:
    if not isinstance(frames, str | Path):
        return frames
    path = Path(frames)
    video = Video(path.name, tuple(files_in(path)), None, {}) if path.is_dir() else Video(path.stem, (), path, {})
    return video.images()


def train(
    config: ExperimentConfig | str,
    overrides: Overrides = (),
    *,
    ray: bool = False,
    wait_for_nodes: float = 15.0,
    again: bool = False,
    replace: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains one run, or continues it: the same name and storage resume.

    Args:
        config: A configuration, a recipe's path, or a `.yaml` or `.json` file.
        overrides: Settings to change.
        ray: On Ray, with as many workers as `train.num_workers` says; otherwise in this process, with one.
        wait_for_nodes: Minutes to wait for nodes of a cluster (`RAY_ADDRESS`) that may grow.
        again: Train also what another finished run has computed.
        replace: Set aside what has this name and other settings.
        quiet: Print no progress.

    Raises:
        OvosError: The run cannot be made as configured, or its data cannot be read.
    """
    source = config if isinstance(config, str) else config.name
    made = config_from(config, overrides) if isinstance(config, str) else override(config, overrides)
    ready = resolve(pin(made))
    options: dict[str, Any] = {"tags": provenance_tags(kind="trial"), "again": again, "replace": replace}
    if ray:
        from ovos_ray.on_ray.fit import fit
        from ovos_ray.on_ray.room import patience_s
        from ovos_ray.on_ray.session import ray_session, watching

        several = ready.train.num_workers > 1
        with ray_session(several_workers=several), watching(_console(quiet), show_run=False) as watcher:
            request = request_for(ready, source, watcher=watcher, **options)
            result = fit(request, wait_s=patience_s(wait_for_nodes))
    else:
        if ready.train.num_workers > 1:
            raise ConfigError("several workers need Ray", "give ray=True, or train.num_workers=1")
        result = fit_here(request_for(ready, source, watcher=_watcher(quiet, show_run=False), **options))
    return Run(result.folder.storage.folder, result.folder.config(), result.values)


@dataclass(frozen=True)
class Study:
    """A study, finished or not: what its folder holds of each trial.

    Attributes:
        space: What it varies.
        trials: Its runs.
    """

    space: SearchSpace
    trials: tuple[Trial, ...]

    @classmethod
    def open(cls, space: SearchSpace | str, overrides: Overrides = ()) -> Study:
        """Returns a study as `sweep` runs it, without running it.

        Raises:
            ConfigError: There is none, or it cannot be expanded.
        """
        made = make(space, SearchSpace) if isinstance(space, str) else space
        found, trials, _ = expand_study(made, _words(overrides))
        return cls(found, tuple(dataclasses.replace(trial, config=resolve(trial.config)) for trial in trials))

    def runs(self) -> dict[str, Run]:
        """Returns the finished runs by trial name; of a population's member the part that ends with the last step."""
        ended = {
            name: folder for name, folder in folders_of(self.space, self.trials).items() if folder.result() is not None
        }
        runs = {name: Run.open(folder.storage.folder) for name, folder in ended.items()}
        return {name: run for name, run in runs.items() if run.config.stop_step == run.config.train.steps}

    def best(self) -> Run:
        """Returns the run with the highest `space.metric` of those that ran to the end.

        Raises:
            ConfigError: No trial has a score.
        """
        metric = self.space.metric
        whole = [run for run in self.runs().values() if not run.values.get("stopped")]
        scored = [(score, run) for run in whole if (score := score_of(metric, run.values)) is not None]
        if not scored:
            key = "validation.root" if metric.startswith("val/") else "evaluation.root"
            name = metric.removeprefix("final/")
            raise ConfigError(f"study {self.space.name}: no trial has {name}", f"score it: {key}=DATASET")
        return max(scored, key=lambda one: one[0])[1]

    def table(self) -> pd.DataFrame:
        """Returns one row a trial: configuration, what it varies, seed, state, scores in percent, steps, seconds.

        Values are those a run has, drawn by Optuna or changed on the way; `val/…` are those of its last validation.
        """
        import pandas as pd

        runs, folders = self.runs(), folders_of(self.space, self.trials)
        rows: list[dict[str, Any]] = []
        for trial in self.trials:
            run, folder = runs.get(trial.name), folders[trial.name]
            made = flatten(folder.config() if folder.claimed else trial.config)
            varied = {key: made.get(key, value) for key, value in trial.values.items()}
            state = read_run(folder.storage).state
            if state == "finished" and run is None:  # a part of a population's member, whose next one has not begun
                state = "waiting"
            values = {"configuration": trial.configuration, **varied, "seed": trial.config.seed, "state": state}
            if run is not None:
                validated = {f"val/{key}": score for key, score in run.values.get("validation", {}).items()}
                more = {key: run.values.get(key) for key in ("steps", "seconds", "label_percent")}
                values |= {**run.scores, **validated, **more}
            rows.append(values)
        return pd.DataFrame(rows, index=pd.Index([trial.name for trial in self.trials], name="trial"))


def sweep(
    space: SearchSpace | str,
    overrides: Overrides = (),
    *,
    ray: bool = False,
    wait_for_nodes: float = 15.0,
    num_processes: int = 1,
    again: bool = False,
    replace: bool = False,
    quiet: bool = False,
) -> Study:
    """Runs a study, or continues it. Failed trials are rows of its table; the others go on.

    Args:
        space: A study, or its path.
        overrides: Settings of all trials, or of the study, as on the command line.
        ray: On Ray Tune; otherwise in processes of this machine.
        wait_for_nodes: Minutes to wait for nodes of a cluster (`RAY_ADDRESS`) that may grow.
        num_processes: Trials at a time without Ray.
        again: Train also what another finished run has computed.
        replace: Set trials aside that were made with other settings.
        quiet: Print no progress.

    Raises:
        OvosError: The study cannot be made as configured.
    """
    study = Study.open(space, overrides)
    options: dict[str, Any] = {"replace": replace, "take_over_same": not again, "tags": provenance_tags(kind="trial")}
    if ray:
        from ovos_ray.on_ray.room import patience_s
        from ovos_ray.on_ray.session import ray_session, watching
        from ovos_ray.on_ray.study import run_sweep

        several = any(trial.config.train.num_workers > 1 for trial in study.trials)
        with ray_session(several_workers=several), watching(_console(quiet), show_run=True) as watcher:
            waited = patience_s(wait_for_nodes)
            run_sweep(study.space, study.trials, watcher=watcher, wait_s=waited, **options)
    else:
        here = _watcher(quiet, show_run=True)
        run_plain(study.space, study.trials, watcher=here, num_processes=num_processes, **options)
    return study


def _words(overrides: Overrides) -> list[str]:
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_written(value)}" for key, value in overrides.items()]


def _written(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_written(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _console(quiet: bool) -> Console:
    from ovos_ray.cli.console import Plain  # shows what others have named as text

    return Plain(quiet=quiet, force_jupyter=False)  # lines of text in a notebook too, not a block of HTML each


def _watcher(quiet: bool, *, show_run: bool) -> Callable[[dict[str, Any]], None] | None:
    return None if quiet else functools.partial(print_record, _console(quiet), show_run=show_run)
