"""`predict` and `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import torch

from ovos_ray.cli.console import console
from ovos_ray.cli.datasets import progress_bar
from ovos_ray.data.dataset_folder import files_in
from ovos_ray.data.layout import open_dataset
from ovos_ray.data.video import Video
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.evaluate.baselines import copy_first_mask, match_colours
from ovos_ray.evaluate.inference import InferenceSettings, NetworkPredictor, Predictor
from ovos_ray.evaluate.prediction import VideoJob, VideoReport, fingerprint, plan_jobs, predict_one
from ovos_ray.evaluate.table import Protocol
from ovos_ray.networks.base import VOSNetwork

__all__ = ["evaluate", "predict"]

_BASELINES: dict[str, Predictor] = {"copy": copy_first_mask, "colour": match_colours}


def predict(
    out: Path,
    *,
    checkpoint: Path | None,
    baseline: str | None,
    root: Path | None,
    split: str,
    layout: str,
    frames: Path | None,
    mask: Path | None,
    network: str | None,
    overlay: Path | None,
    num_workers: int,
    evaluate: bool,
    verbose: bool,
    **changes: Any,
) -> None:
    """Predicts a split or one video, and scores it if asked to.

    Raises:
        OvosError: Something given cannot be used; finished videos stay.
    """
    from ovos_ray.evaluate.checkpoint_file import load_network

    if (root is None) == (frames is None):
        raise ConfigError("give either --root or --frames", "--root for a dataset, --frames and --mask for one video")
    if (checkpoint is None) == (baseline is None):
        raise ConfigError("give either --checkpoint or --baseline", "--checkpoint RUN, or --baseline copy")
    predictor: Predictor
    if checkpoint is not None:
        predictor = _predictor(load_network(checkpoint, network), changes)
    elif baseline in _BASELINES:
        predictor = _BASELINES[baseline]
    else:
        raise ConfigError(f"no baseline {baseline!r}", f"there are {', '.join(_BASELINES)}")
    if root is not None:
        folder = open_dataset(root, layout=layout)
        jobs = plan_jobs(folder, split, out, fingerprint(predictor), overlay=overlay)
    else:
        jobs = [_single(frames, mask, out, overlay)]
    began = time.perf_counter()
    done: list[VideoReport] = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(jobs))
        for report in _run(predictor, jobs, num_workers, verbose):
            done.append(report)
            bar.advance(task)
            state = "there already" if report.skipped else f"{report.num_frames / report.seconds:.1f} frames/s"
            console.print(f"{report.name}: {state}", highlight=False)
    console.print(f"{len(done)} videos in {time.perf_counter() - began:.1f} s: {out}", highlight=False, soft_wrap=True)
    if evaluate:
        if root is None:
            raise ConfigError("--evaluate needs the true masks of a dataset", "use --root, or `ovos-ray evaluate`")
        protocol = {"davis2016": "davis2016", "youtube-vos": "youtube-vos"}.get(folder.description.layout, "davis2017")
        _score(out, folder.root, protocol, sequences=[job.video.name for job in jobs])


def _predictor(network: VOSNetwork, changes: dict[str, Any]) -> NetworkPredictor:
    if torch.cuda.is_available():
        network = network.cuda()
    given = {name: value for name, value in changes.items() if value is not None}
    return NetworkPredictor(network, InferenceSettings.of(network, **given))


def _single(frames: Path | None, mask: Path | None, out: Path, overlay: Path | None) -> VideoJob:
    if frames is None or mask is None:
        raise ConfigError("--frames needs --mask, the mask of the first frame")
    if frames.is_dir():
        video = Video(frames.name, tuple(files_in(frames)), None, {0: mask})
        if not video.frames:
            raise DataError(f"{frames} holds no images", "give a folder of frames, or a video file")
    elif frames.is_file():
        video = Video(frames.stem, (), frames, {0: mask})
    else:
        raise DataError(f"{frames}: no such folder or file")
    return VideoJob(video, out, overlay=overlay)


def _run(predictor: Predictor, jobs: list[VideoJob], num_workers: int, verbose: bool) -> Iterator[VideoReport]:
    if num_workers == 1:
        for job in jobs:
            yield predict_one(predictor, job)
        return
    import ray
    from ray.util import ActorPool

    from ovos_ray.cli.session import ray_session

    with ray_session(verbose=verbose):
        stored = ray.put(predictor)
        gpus = 1 if torch.cuda.is_available() else 0
        actor = ray.remote(num_cpus=1, num_gpus=gpus)(_PredictionWorker)
        pool = ActorPool([actor.remote(stored) for _ in range(min(num_workers, len(jobs)))])
        yield from pool.map_unordered(lambda worker, job: worker.predict.remote(job), jobs)


class _PredictionWorker:
    """Predicts videos in a process of its own."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, job: VideoJob) -> VideoReport:
        return predict_one(self._predictor, job)


def evaluate(
    predictions: Path,
    annotations: Path,
    protocol: str,
    *,
    csv: Path | None,
    json: Path | None,
    num_processes: int | None,
) -> None:
    """Scores predictions, prints the table, and writes it where asked to.

    Raises:
        EvaluationError: Something is missing, misnamed or of the wrong kind.
    """
    if protocol not in get_args(Protocol):
        raise ConfigError(f"no protocol {protocol!r}", f"choose one of {', '.join(get_args(Protocol))}")
    _score(predictions, annotations, protocol, csv=csv, json=json, num_processes=num_processes)


def _score(
    predictions: Path,
    annotations: Path,
    protocol: str,
    *,
    sequences: list[str] | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    num_processes: int | None = None,
) -> None:
    from ovos_ray.evaluate.scoring import evaluate_folders

    with progress_bar() as bar:
        task = bar.add_task("scoring", total=None)
        table = evaluate_folders(
            predictions,
            annotations,
            cast(Protocol, protocol),
            sequences=sequences,
            num_processes=num_processes,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(table.render())
    if csv is not None:
        table.write_csv(csv)
    if json is not None:
        table.write_json(json)
