"""`predict`: the masks of a dataset split, or of one video."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from ovos_ray.cli.console import console, counted, progress_bar
from ovos_ray.cli.models import fetched
from ovos_ray.cli.options import LAYOUTS, Network, PrompterName, PrompterWeights, Verbose
from ovos_ray.cli.prompts import keep_masks_of_boxes, one_video
from ovos_ray.errors import ConfigError

if TYPE_CHECKING:
    from ovos_ray.evaluate.infer.inference import Predictor
    from ovos_ray.evaluate.infer.prediction import VideoReport
    from ovos_ray.evaluate.infer.video_jobs import VideoJob

__all__ = ["predict"]

EXAMPLE = "ovos-ray predict --checkpoint runs/one-shot --frames clip.mp4 --box 1:10,20,200,180 --out predictions"


def predict(
    out: Annotated[Path, typer.Option(help="Where palette PNGs go, one folder per video.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A run folder, our weights, an official .pth, or a name from `ovos-ray models`.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Instead of --checkpoint: `copy` or `colour`.")] = None,
    root: Annotated[Path | None, typer.Option(help="A dataset folder.")] = None,
    split: Annotated[str, typer.Option(help="Its split.")] = "val",
    layout: Annotated[str, typer.Option(help=f"Its layout: {LAYOUTS}.")] = "auto",
    frames: Annotated[Path | None, typer.Option(help="Instead of --root: frames, or a video file.")] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(help="With --frames: MASK.png of the first frame, or 42=MASK.png of frame 42; may be repeated."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of a mask: 1:x0,y0,x1,y1 around object 1, or 42=1:x0,y0,x1,y1 in frame 42; may be repeated."
        ),
    ] = None,
    prompter: PrompterName = "grabcut",
    prompter_weights: PrompterWeights = None,
    direction: Annotated[
        str | None,
        typer.Option(
            help="`forward`, `backward`, or `both` ways from the masks (default: `both`; benchmarks: `forward`)."
        ),
    ] = None,
    network: Network = None,
    shortest_side: Annotated[int | None, typer.Option(help="Predict at this size; 0: at full size.")] = None,
    memory_interval: Annotated[int | None, typer.Option(help="Memorise every r-th frame.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored video.")] = False,
    scales: Annotated[str | None, typer.Option(help="Average over sizes, such as 1,1.25.")] = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    reference: Annotated[
        str, typer.Option(help="Start from the mask `given`, or from an `empty` one (Figure 6).")
    ] = "given",
    soft: Annotated[Path | None, typer.Option(help="Also write probabilities, as FRAME.npz, here.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Also write a video (one video) or a folder of them.")] = None,
    num_workers: Annotated[int, typer.Option(help="Videos predicted at a time, on Ray.")] = 1,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score the predictions too.")] = False,
    verbose: Verbose = False,
) -> None:
    """Predicts the masks of a dataset split, or of one video."""
    from ovos_ray.data.folders.open import open_dataset
    from ovos_ray.evaluate.infer.directions import Direction
    from ovos_ray.evaluate.infer.video_jobs import VideoJob, claim, fingerprint, plan_jobs
    from ovos_ray.evaluate.score.table import protocol_for
    from ovos_ray.evaluate.score.truth import require_truth
    from ovos_ray.label.prompts import prompter_of

    if (root is None) == (frames is None):
        raise ConfigError(
            "give either --root or --frames", "--root for a dataset, --frames with --mask or --box for one video"
        )
    if root is not None and (mask or box):
        given = "--mask" if mask else "--box"
        raise ConfigError(f"{given} is for one video, --root for a dataset with masks of its own", "use --frames")
    if evaluate and root is None:
        raise ConfigError("--evaluate needs the true masks of a dataset", "use --root, or `ovos-ray evaluate`")
    if num_workers < 1:
        raise ConfigError(f"--num-workers {num_workers}: must be at least 1", "give 1 or more")
    if num_workers > 1:  # workers may run in another folder
        out = out.absolute()
        frames, soft, overlay = (path and path.absolute() for path in (frames, soft, overlay))
    if direction not in (None, *get_args(Direction)):
        raise ConfigError(f"--direction {direction}", f"choose one of {', '.join(get_args(Direction))}")
    settings = {
        "shortest_side": shortest_side,
        "memory_interval": memory_interval,
        "flip": flip,
        "scales": None if scales is None else _numbers(scales),
        "precision": precision,
        "reference": reference,
    }
    predictor = _predictor(checkpoint, baseline, network, settings, soft=soft is not None)
    if root is not None:
        folder = open_dataset(root, layout=layout)
        if evaluate:  # what cannot be scored is said before hours of predicting
            require_truth(folder, split, protocol_for(folder.description.layout))
        # Benchmarks are walked forward; who labels one frame of their own wants masks of all frames.
        way = direction or ("both" if folder.description.layout == "folder" else "forward")
        origin = fingerprint(predictor)
        jobs = plan_jobs(folder, split, out, origin, soft=soft, overlay=overlay, direction=cast(Direction, way))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            made_by = functools.partial(prompter_of, prompter, prompter_weights)
            video = one_video(frames, mask or [], box or [], made_by, Path(scratch))
            (job,) = claim(
                out,
                [VideoJob(video, out, soft, overlay, direction=cast(Direction, direction or "both"))],
                fingerprint(predictor),
            )
            jobs = [keep_masks_of_boxes(job, Path(scratch))]
    began = time.perf_counter()
    for report in _predicted(predictor, jobs, num_workers, verbose):
        state = "there already" if report.skipped else f"{report.num_frames / report.seconds:.1f} frames/s"
        console.print(f"{report.name}: {state}")
    console.print(f"{counted(len(jobs), 'video')} in {time.perf_counter() - began:.1f} s: {out}")
    if evaluate:
        from ovos_ray.cli.evaluate import score
        from ovos_ray.evaluate.score.truth import truth_of

        names = [job.video.name for job in jobs]
        with tempfile.TemporaryDirectory(prefix="ovos-truth-") as copies:
            truth = truth_of(folder, split, names, Path(copies))
            score(out, truth, protocol_for(folder.description.layout), names)


def _predictor(
    checkpoint: Path | None, baseline: str | None, network: str | None, settings: dict[str, Any], *, soft: bool
) -> Predictor:
    from ovos_ray.evaluate.infer.baselines import copy_first_mask, match_colours
    from ovos_ray.evaluate.infer.inference import InferenceSettings, NetworkPredictor
    from ovos_ray.train.load_network import load_network

    baselines: dict[str, Predictor] = {"copy": copy_first_mask, "colour": match_colours}
    if (checkpoint is None) == (baseline is None):
        raise ConfigError("give either --checkpoint or --baseline", "--checkpoint RUN, or --baseline copy")
    if checkpoint is not None:
        loaded = load_network(fetched(checkpoint), network)
        given = {name: value for name, value in settings.items() if value is not None}
        return NetworkPredictor(loaded, InferenceSettings.of(loaded, **given), soft)
    if soft:
        raise ConfigError("--soft: baselines have no probabilities", "use --checkpoint")
    if baseline not in baselines:
        raise ConfigError(f"no baseline {baseline!r}", f"there are {', '.join(baselines)}")
    return baselines[baseline]


def _predicted(predictor: Predictor, jobs: list[VideoJob], num_workers: int, verbose: bool) -> Iterator[VideoReport]:
    """Predicts videos, here or on Ray, behind a bar that counts their frames."""
    from ovos_ray.evaluate.infer.prediction import predict_one
    from ovos_ray.on_ray.predict import on_device, predict_in_parallel

    to_do = [job.video for job in jobs if not job.finished]
    total = None if any(video.file for video in to_do) else sum(len(video.frames) for video in to_do)
    with progress_bar() as bar:
        task = bar.add_task("predicting frames", total=total)
        if num_workers == 1:
            predictor = on_device(predictor)
            for job in jobs:
                yield predict_one(predictor, job, on_frame=lambda: bar.advance(task))
        else:
            for report in predict_in_parallel(predictor, jobs, num_workers, verbose=verbose):
                bar.advance(task, report.num_frames)
                yield report


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise ConfigError(f"--scales {text}: not numbers", "separate them by commas, such as 1,1.25") from None
