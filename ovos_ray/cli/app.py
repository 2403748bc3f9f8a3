"""The verbs of `ovos-ray`. Each body is a few lines; what it does lives in the room of that name.

Heavy imports (torch, Ray, MLflow) are made inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ovos_ray.cli.console import errors
from ovos_ray.errors import OvosError

__all__ = ["app", "run"]

app = typer.Typer(
    name="ovos-ray",
    help="One-shot training of video object segmentation networks, orchestrated on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)

Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads annotations at run time, also on Python 3.10)
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as train.steps=500 (see `ovos-ray show`)."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Ray's own log.")]
WaitForNodes = Annotated[float, typer.Option(help="Minutes to wait for nodes of a cluster that may grow.")]


def run() -> None:
    """Runs the program; errors with a remedy are printed instead of a traceback."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # a user's recipe modules lie in the current folder
    try:
        app()
    except OvosError as error:
        errors.print(f"[bold red]{type(error).__name__}[/]: {_escape(error.message)}", soft_wrap=True)
        if error.remedy:
            errors.print(f"[bold]What to do:[/] {_escape(error.remedy)}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on where this one stopped")
        sys.exit(130)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.command(epilog="Example: `ovos-ray pack davis2017 --root DAVIS/2017 --out shards/davis --labels first`")
def pack(
    dataset: Annotated[str, typer.Argument(help="Dataset description or layout: davis2017, youtube_vos2018, folder…")],
    root: Annotated[Path, typer.Option(help="The dataset's folder.")],
    out: Annotated[Path, typer.Option(help="Where the shards go; must not exist, or hold the same dataset.")],
    split: Annotated[str, typer.Option(help="Which split to pack.")] = "train",
    labels: Annotated[str, typer.Option(help="`first`: one label per video and no other annotation. `all`.")] = "first",
    layout: Annotated[str, typer.Option(help="Overrides the description's layout.")] = "auto",
    shortest_side: Annotated[Optional[int], typer.Option(help="Re-encode larger frames to this size.")] = None,  # noqa: UP045
    label_frame: Annotated[str, typer.Option(help="`first`, or the index of the frame to label.")] = "first",
    exclude: Annotated[Optional[list[str]], typer.Option(help="A video to leave out; may be repeated.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option(help="Replace another dataset at --out.")] = False,
) -> None:
    """Packs a dataset folder into Parquet shards with an index."""
    from ovos_ray.cli import datasets

    datasets.pack_dataset(
        dataset, root, out, split=split, labels=labels, layout=layout, shortest_side=shortest_side,
        label_frame=label_frame, exclude=tuple(exclude or ()), overwrite=overwrite,
    )  # fmt: skip


@app.command(epilog="Example: `ovos-ray verify shards/davis`")
def verify(shards: Annotated[Path, typer.Argument(help="A folder written by `ovos-ray pack`.")]) -> None:
    """Checks every row of a shard folder; exits with 1 if anything is wrong."""
    from ovos_ray.cli import datasets

    if not datasets.verify_shards(shards):
        raise typer.Exit(1)


@app.command(epilog="Example: `ovos-ray train trainables.one_shot data.shards=shards/davis train.steps=500`")
def train(
    trainable: Annotated[str, typer.Argument(help="A recipe, such as trainables.one_shot.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print configuration and cost, train nothing.")] = False,
    wait_for_nodes: WaitForNodes = 15.0,
    verbose: Verbose = False,
) -> None:
    """Trains one run. The same name and storage resume it."""
    from ovos_ray.cli import training

    training.train(trainable, overrides or [], dry_run=dry_run, verbose=verbose, wait_for_nodes=wait_for_nodes)


@app.command(epilog="Example: `ovos-ray sweep search_spaces.backward_strategy data.shards=shards/davis`")
def sweep(
    search_space: Annotated[str, typer.Argument(help="A study, such as search_spaces.backward_strategy.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and their cost.")] = False,
    max_concurrent: Annotated[Optional[int], typer.Option(help="Trials at a time.")] = None,  # noqa: UP045
    no_ray: Annotated[bool, typer.Option("--no-ray", help="In processes on this machine, without Ray.")] = False,
    num_processes: Annotated[int, typer.Option(help="With --no-ray: trials at a time.")] = 1,
    wait_for_nodes: WaitForNodes = 15.0,
    verbose: Verbose = False,
) -> None:
    """Runs a study on Ray Tune, logged to MLflow. The same command resumes it."""
    from ovos_ray.cli import training

    if not training.sweep(
        search_space,
        overrides or [],
        dry_run=dry_run,
        max_concurrent=max_concurrent,
        plain_processes=num_processes if no_ray else None,
        verbose=verbose,
        wait_for_nodes=wait_for_nodes,
    ):
        raise typer.Exit(1)


@app.command("show", epilog="Example: `ovos-ray show trainables.one_shot.xmem data.clip_length=5`")
def show(recipe: Annotated[str, typer.Argument(help="A recipe or a study.")], overrides: Overrides = None) -> None:
    """Prints the resolved configuration of a recipe, or the trials of a study."""
    from ovos_ray.cli import training

    training.show(recipe, overrides or [])


@app.command("ls", epilog="Example: `ovos-ray ls`")
def list_all() -> None:
    """Lists the recipes, studies and datasets at hand."""
    from ovos_ray.cli import training

    training.list_all()


@app.command(
    epilog="Example: `ovos-ray predict --checkpoint runs/one-shot --root DAVIS/2017 --split val --out predictions`"
)
def predict(
    out: Annotated[Path, typer.Option(help="Where palette PNGs go, one folder per video.")],
    checkpoint: Annotated[Optional[Path], typer.Option(help="A run folder, our weights, or an official .pth.")] = None,  # noqa: UP045
    baseline: Annotated[Optional[str], typer.Option(help="Instead of --checkpoint: `copy` or `colour`.")] = None,  # noqa: UP045
    root: Annotated[Optional[Path], typer.Option(help="A dataset folder.")] = None,  # noqa: UP045
    split: Annotated[str, typer.Option(help="Its split.")] = "val",
    layout: Annotated[str, typer.Option(help="Its layout.")] = "auto",
    frames: Annotated[Optional[Path], typer.Option(help="Instead of --root: frames, or a video file.")] = None,  # noqa: UP045
    mask: Annotated[Optional[Path], typer.Option(help="With --frames: the mask of the first frame.")] = None,  # noqa: UP045
    network: Annotated[Optional[str], typer.Option(help="Network of a file that does not name its own.")] = None,  # noqa: UP045
    shortest_side: Annotated[Optional[int], typer.Option(help="Predict at this size; 0: at full size.")] = None,  # noqa: UP045
    memory_interval: Annotated[Optional[int], typer.Option(help="Memorise every r-th frame.")] = None,  # noqa: UP045
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored video.")] = False,
    scales: Annotated[Optional[str], typer.Option(help="Average over sizes, such as 1,1.25.")] = None,  # noqa: UP045
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    reference: Annotated[str, typer.Option(help="`given`, or `empty` (Figure 6).")] = "given",
    soft: Annotated[Optional[Path], typer.Option(help="Also write probabilities, as FRAME.npz, here.")] = None,  # noqa: UP045
    overlay: Annotated[Optional[Path], typer.Option(help="Also write a video (one video) or a folder of them.")] = None,  # noqa: UP045
    num_workers: Annotated[int, typer.Option(help="Videos predicted at a time, on Ray.")] = 1,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score the predictions too.")] = False,
    verbose: Verbose = False,
) -> None:
    """Predicts the masks of a dataset split, or of one video."""
    from ovos_ray.cli import prediction

    prediction.predict(
        out, checkpoint=checkpoint, baseline=baseline, root=root,
        split=split, layout=layout, frames=frames, mask=mask, network=network,
        shortest_side=shortest_side, memory_interval=memory_interval, flip=flip, scales=scales, precision=precision,
        reference=reference, soft=soft, overlay=overlay,
        num_workers=num_workers, evaluate=evaluate, verbose=verbose,
    )  # fmt: skip


@app.command(
    epilog="Example: `ovos-ray evaluate --predictions predictions --annotations DAVIS/2017/trainval/Annotations/480p "
    "--protocol davis2017`"
)
def evaluate(
    predictions: Annotated[Path, typer.Option(help="Folder of predicted masks, one folder per video.")],
    annotations: Annotated[Path, typer.Option(help="Folder of true masks, or the dataset's.")],
    protocol: Annotated[str, typer.Option(help="davis2016, davis2017 or youtube-vos.")] = "davis2017",
    sequences: Annotated[Optional[str], typer.Option(help="Only these, such as bear,swan.")] = None,  # noqa: UP045
    seen: Annotated[Optional[Path], typer.Option(help="youtube-vos: meta.json of the training set.")] = None,  # noqa: UP045
    meta: Annotated[Optional[Path], typer.Option(help="youtube-vos: meta.json of the split.")] = None,  # noqa: UP045
    csv: Annotated[Optional[Path], typer.Option(help="Write scores per sequence and object here.")] = None,  # noqa: UP045
    json: Annotated[Optional[Path], typer.Option(help="Write everything as JSON here.")] = None,  # noqa: UP045
    brief: Annotated[bool, typer.Option("--brief", help="Print the summary only.")] = False,
    num_processes: Annotated[Optional[int], typer.Option(help="Default: one per CPU.")] = None,  # noqa: UP045
) -> None:
    """Scores predictions as the official toolkit does. Exits with 1 if they cannot be scored, saying why."""
    from ovos_ray.cli import scoring

    scoring.evaluate(
        predictions, annotations, protocol, sequences=sequences.split(",") if sequences else None,
        seen=seen, meta=meta, csv=csv, json=json, brief=brief, num_processes=num_processes,
    )  # fmt: skip


@app.command(
    epilog="Example: `ovos-ray submission --predictions predictions --benchmark youtube-vos2018 --root YouTube "
    "--out submission.zip`"
)
def submission(
    benchmark: Annotated[str, typer.Option(help="davis2017-test-dev, youtube-vos2018, youtube-vos2019, …")],
    root: Annotated[Path, typer.Option(help="The benchmark's dataset.")],
    out: Annotated[Path, typer.Option(help="The zip; it appears only if every rule is kept.")],
    predictions: Annotated[Optional[Path], typer.Option(help="Written by `predict`; without: check --out.")] = None,  # noqa: UP045
) -> None:
    """Zips predictions for a benchmark's server, and checks every rule of it."""
    from ovos_ray.cli import scoring

    scoring.submission(benchmark, root, out, predictions)


@app.command(epilog="Example: `ovos-ray report backward_strategy --out report`")
def report(
    experiment: Annotated[str, typer.Argument(help="Name of the study (MLflow experiment).")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    tracking_uri: Annotated[str, typer.Option(help="MLflow store.")] = "sqlite:///mlflow.db",
    sequence: Annotated[Optional[list[str]], typer.Option(help="Show pictures of this one; may be repeated.")] = None,  # noqa: UP045
    attach: Annotated[bool, typer.Option(help="Also store page and pictures with the runs in MLflow.")] = True,
    terminal: Annotated[bool, typer.Option("--terminal", help="Print the summary and the tables only.")] = False,
) -> None:
    """Compares the trials of a study: tables beside the paper's, plots, overlays, one HTML page."""
    from ovos_ray.cli import reporting

    reporting.report(
        experiment, out, tracking_uri=tracking_uri, sequences=tuple(sequence or ()), attach=attach, terminal=terminal
    )


@app.command(
    epilog="Example: `ovos-ray submit --address http://HEAD:8265 -- sweep search_spaces.smoke "
    "data.shards=/mnt/shards/davis storage=/mnt/runs tracking_uri=http://MLFLOW:5000`",
    context_settings={"allow_interspersed_args": False},
)
def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="VERB [ARGUMENTS]", help="What the job is to do.")],
    address: Annotated[Optional[str], typer.Option(help="Its dashboard; default: RAY_ADDRESS, or here.")] = None,  # noqa: UP045
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the job's log.")] = False,
    submission_id: Annotated[Optional[str], typer.Option(help="Name of the job; default: verb and time.")] = None,  # noqa: UP045
    runtime_env: Annotated[Optional[str], typer.Option(help="Runtime environment: a YAML file, or JSON.")] = None,  # noqa: UP045
    env: Annotated[Optional[list[str]], typer.Option(help="NAME=VALUE, or NAME for its value here.")] = None,  # noqa: UP045
    install: Annotated[bool, typer.Option("--install", help="Let pip bring the dependencies to every node.")] = False,
    token_file: Annotated[Optional[Path], typer.Option(help="File with the cluster's token.")] = None,  # noqa: UP045
    num_cpus: Annotated[float, typer.Option(help="CPUs of the job's own process, beside its workers'.")] = 0,
    num_gpus: Annotated[float, typer.Option(help="GPUs of the job's own process (`predict`).")] = 0,
    max_package_mib: Annotated[float, typer.Option(help="Largest folder that is sent along.")] = 100,
) -> None:
    """Runs a verb as a job of a Ray cluster; exits as the job does. The same command again resumes."""
    from ovos_ray.cli import submit as submission

    parent = context.parent
    assert parent is not None
    verb, *arguments = command
    commands = parent.command.commands  # type: ignore[attr-defined]
    if verb not in commands or verb == "submit":
        raise typer.BadParameter(f"{verb!r} is no verb; there are {', '.join(v for v in commands if v != 'submit')}")
    parameters = commands[verb].make_context(verb, list(arguments)).params
    environment, variables = submission.parse_environment(runtime_env, env or [])
    options = submission.JobOptions(
        address=address, wait=not no_wait, submission_id=submission_id, environment=environment, variables=variables,
        install=install, token_file=token_file, num_cpus=num_cpus, num_gpus=num_gpus, max_package_mib=max_package_mib,
    )  # fmt: skip
    raise typer.Exit(submission.submit(verb, arguments, parameters, options))


@app.command(epilog="Example: `ovos-ray sync runs`")
def sync(
    folder: Annotated[str, typer.Argument(help="Folder or bucket URI of the runs.")] = "runs",
    tracking_uri: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A server to trust with them, beside those that runs of yours have used."),
    ] = None,
) -> None:
    """Sends what the tracking spools still hold; exits with 1 if something could not be sent."""
    from ovos_ray.cli import reporting

    if not reporting.sync(folder, tracking_uri):
        raise typer.Exit(1)


@app.command(epilog="Example: `ovos-ray demo --out demo`")
def demo(
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("demo"),
    steps: Annotated[Optional[int], typer.Option(help="Optimiser steps per trial.")] = None,  # noqa: UP045
    verbose: Verbose = False,
) -> None:
    """Runs the whole chain on an embedded synthetic dataset, in minutes on two CPU cores."""
    from ovos_ray.cli import demo as demonstration

    if not demonstration.demo(out, steps=steps, verbose=verbose):
        raise typer.Exit(1)


@app.command(epilog="Example: `ovos-ray doctor --shards shards/davis --recipe trainables.one_shot.stcn --bench-ingest`")
def doctor(
    shards: Annotated[Optional[list[str]], typer.Option(help="Shards to look at; may be repeated.")] = None,  # noqa: UP045
    storage: Annotated[str, typer.Option(help="Where runs are to be kept.")] = "runs",
    tracking_uri: Annotated[str, typer.Option(help="MLflow store.")] = "sqlite:///mlflow.db",
    recipe: Annotated[Optional[str], typer.Option(help="A run that is to fit, such as trainables.one_shot.")] = None,  # noqa: UP045
    bench_ingest: Annotated[bool, typer.Option("--bench-ingest", help="Measure how fast clips are decoded.")] = False,
) -> None:
    """Says what is installed, what the cluster has, and whether shards, storage and tracking are reachable."""
    from ovos_ray.cli import doctor as physician
    from ovos_ray.config import ExperimentConfig
    from ovos_ray.config.recipes import make

    config = None if recipe is None else make(recipe, ExperimentConfig)
    if not physician.examine(tuple(shards or ()), storage, tracking_uri, config=config, bench_ingest=bench_ingest):
        raise typer.Exit(1)
