"""`predict`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovos_ray.cli.console import console
from ovos_ray.cli.progress import progress_bar
from ovos_ray.data.folders.base import files_in
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.evaluate.infer.baselines import copy_first_mask, match_colours
from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor, Predictor
from ovos_ray.evaluate.infer.prediction import VideoReport, predict_one
from ovos_ray.evaluate.infer.video_jobs import VideoJob, claim, fingerprint, plan_jobs
from ovos_ray.evaluate.score.table import protocol_for
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.on_ray.predict import on_device, predict_in_parallel

__all__ = ["predict"]

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
    soft: Path | None,
    overlay: Path | None,
    num_workers: int,
    evaluate: bool,
    verbose: bool,
    **changes: Any,
) -> None:
    """Predicts a split or one video, and scores it if asked to.

    Args:
        out: Folder of the masks.
        checkpoint: Weights; or None, with a `baseline` by name.
        baseline: `copy` or `colour`; or None.
        root: A dataset with its `split` and `layout`; or None, with `frames` and `mask`.
        split: See `root`.
        layout: See `root`.
        frames: A folder of frames or a video file; or None.
        mask: The mask of its first frame.
        network: Name of the network, for weights that do not tell.
        soft: Folder of the probabilities, or None.
        overlay: A video file (of `frames`) or a folder of them, or None.
        num_workers: Videos at a time; more than one on Ray.
        evaluate: Whether to score the predictions.
        verbose: Whether to show Ray's log.
        **changes: Fields of `InferenceSettings`; None leaves the published value.

    Raises:
        OvosError: Something given cannot be used; finished videos stay.
    """
    from ovos_ray.train.load_network import load_network

    if (root is None) == (frames is None):
        raise ConfigError("give either --root or --frames", "--root for a dataset, --frames and --mask for one video")
    if (checkpoint is None) == (baseline is None):
        raise ConfigError("give either --checkpoint or --baseline", "--checkpoint RUN, or --baseline copy")
    if evaluate and root is None:
        raise ConfigError("--evaluate needs the true masks of a dataset", "use --root, or `ovos-ray evaluate`")
    if num_workers < 1:
        raise ConfigError(f"--num-workers {num_workers}: must be at least 1", "give 1 or more")
    if num_workers > 1:  # workers may run in another folder
        out = out.absolute()
        frames, mask, soft, overlay = map(_absolute, (frames, mask, soft, overlay))
    predictor: Predictor
    if checkpoint is not None:
        predictor = _predictor(load_network(checkpoint, network), changes, soft=soft is not None)
    elif soft is not None:
        raise ConfigError("--soft: baselines have no probabilities", "use --checkpoint")
    elif baseline in _BASELINES:
        predictor = _BASELINES[baseline]
    else:
        raise ConfigError(f"no baseline {baseline!r}", f"there are {', '.join(_BASELINES)}")
    if root is not None:
        folder = open_dataset(root, layout=layout)
        jobs = plan_jobs(folder, split, out, fingerprint(predictor), soft=soft, overlay=overlay)
    else:
        jobs = claim(out, [_single(frames, mask, out, soft, overlay)], fingerprint(predictor))
    began = time.perf_counter()
    done: list[VideoReport] = []
    to_do = [job.video for job in jobs if not job.finished]
    total = None if any(video.file for video in to_do) else sum(len(video.frames) for video in to_do)
    with progress_bar() as bar:
        task = bar.add_task("predicting frames", total=total)
        reports: Iterator[VideoReport]
        if num_workers == 1:
            predictor = on_device(predictor)
            reports = (predict_one(predictor, job, on_frame=lambda: bar.advance(task)) for job in jobs)
        else:
            reports = predict_in_parallel(predictor, jobs, num_workers, verbose=verbose)
        for report in reports:
            done.append(report)
            if num_workers > 1:
                bar.advance(task, report.num_frames)
            state = "there already" if report.skipped else f"{report.num_frames / report.seconds:.1f} frames/s"
            console.print(f"{report.name}: {state}", highlight=False)
    console.print(f"{len(done)} videos in {time.perf_counter() - began:.1f} s: {out}", highlight=False, soft_wrap=True)
    if evaluate:
        from ovos_ray.cli.scoring import evaluate as score

        score(out, folder.root, protocol_for(folder.description.layout), sequences=[job.video.name for job in jobs])


def _predictor(network: VOSNetwork, changes: dict[str, Any], soft: bool) -> NetworkPredictor:
    given = {name: value for name, value in changes.items() if value is not None}
    if "scales" in given:
        given["scales"] = _numbers(given["scales"])
    return NetworkPredictor(network, InferenceSettings.of(network, **given), soft)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise ConfigError(f"--scales {text}: not numbers", "separate them by commas, such as 1,1.25") from None


def _single(frames: Path | None, mask: Path | None, out: Path, soft: Path | None, overlay: Path | None) -> VideoJob:
    if frames is None or mask is None:
        raise ConfigError(
            "--frames needs --mask, the mask of the first frame",
            "paint one as an indexed PNG, 0 for background and 1, 2, … for the objects: --mask MASK.png",
        )
    if not mask.is_file():
        raise DataError(f"{mask}: no such mask", "give the mask of the first frame, an indexed PNG")
    if frames.is_dir():
        video = Video(frames.name, tuple(files_in(frames)), None, {0: mask})
        if not video.frames:
            raise DataError(f"{frames} holds no images", "give a folder of frames, or a video file")
    elif frames.is_file():
        video = Video(frames.stem, (), frames, {0: mask})
    else:
        raise DataError(f"{frames}: no such folder or file", "give a folder of frames, or a video file")
    return VideoJob(video, out, soft, overlay)
