"""What `demo` runs: the whole chain on an embedded synthetic dataset, on two CPU cores.

The data, and with it the scores of the baselines, are fixed by a seed. Its difficulty was set before anything was
trained on it, and the training settings were chosen on a split that is not reported (docs/demo.md). One seed and a few
minutes a trial: the demo shows that the chain learns, and ranks nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table

from ovos_ray import networks
from ovos_ray.cli.console import console, counted, progress_bar
from ovos_ray.config import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    override,
)
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.errors import OvosError
from ovos_ray.evaluate.evaluation import evaluate_network
from ovos_ray.evaluate.infer.baselines import copy_first_mask, match_colours
from ovos_ray.evaluate.infer.contact_sheet import write_contact_sheet
from ovos_ray.evaluate.infer.prediction import predict_dataset
from ovos_ray.evaluate.metrics import COMPARED
from ovos_ray.evaluate.score.scoring import evaluate_folders
from ovos_ray.evaluate.score.table import ScoreTable, protocol_for
from ovos_ray.io import write_json
from ovos_ray.packing.pack import pack
from ovos_ray.run.request import resolve
from ovos_ray.study.expand import expand
from ovos_ray.study.space import SearchSpace, Trial
from ovos_ray.track.provenance import provenance_tags
from ovos_ray.track.sink import Sink

__all__ = ["demo_config", "demo_space", "run_demo"]

_BASELINES = {"copy the first mask": copy_first_mask, "colour matching": match_colours}
_STATIC_CLIPS = {"data.static_share": ((0.0, 1.0), (0.25, 0.25)), "data.static_clips": "layers"}
_MARGIN = 10.0  # points of J&F by which the best strategy must beat copying


def demo_config(out: Path, steps: int | None = None) -> ExperimentConfig:
    """Returns the recipe of the demo: clips of 5 frames at 96 pixels, a few hundred steps."""
    steps = steps or 300
    return ExperimentConfig(
        name="demo",
        network=NetworkConfig(name="stcn-tiny"),
        data=DataConfig(
            shards=(str(out / "shards"),),
            clip_length=5,
            max_skip=((0.0, 2), (0.3, 4)),
            batch_size=4,
            crop_size=96,
            max_objects=3,
        ),
        method=MethodConfig(loss=LossConfig(cross_entropy="plain", dice=True)),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, weight_decay=0.01, warm_up_steps=20, decay_steps=(round(0.8 * steps),), clip_norm=1.0
        ),
        train=TrainConfig(
            steps=steps,
            num_threads=1,
            checkpoint_every=100,
            log_every=max(1, min(25, steps // 4)),  # a short demo has curves too
        ),
        evaluation=EvaluationConfig(root=str(out / "dataset"), split="val"),
        storage=str(out / "runs"),
        tracking_uri=f"sqlite:///{(out / 'mlflow.db').absolute()}",
    )


def demo_space() -> SearchSpace:
    """Returns the study of the demo: the backward strategies of both families."""
    return SearchSpace(
        name="demo",
        trainable="demo",
        axes={
            "network.name method.backward": (
                ("stcn-tiny", "T-step"),
                ("stcn-tiny", "2-step"),
                ("stcn-tiny", "1-step"),
                ("xmem-tiny", "T-step"),
                ("xmem-tiny", "2-step"),
            )
        },
        seeds=(0,),
        table="Table 4, with tiny networks on synthetic data",
    )


def run_demo(
    out: Path, *, steps: int | None = None, num_videos: Mapping[str, int] | None = None, verbose: bool = False
) -> bool:
    """Runs the demo; returns whether the best strategy beats copying the first mask by 10 points of J&F.

    Args:
        out: Folder of everything it makes.
        steps: Optimiser steps per trial; None: 300.
        num_videos: Videos per split; see `data.folders.synthetic.generate`.
        verbose: Whether Ray's own log is shown.

    Raises:
        OvosError: A part of the chain failed.
    """
    from ovos_ray.on_ray.session import ray_session, watching
    from ovos_ray.on_ray.study import run_sweep

    began = time.perf_counter()
    space = demo_space()
    trials = [
        Trial(trial.name, trial.values, resolve(trial.config)) for trial in _trials(space, demo_config(out, steps))
    ]
    with ThreadPoolExecutor(1) as beside:  # Ray takes seconds to start, and so do the first trials
        preparing = beside.submit(_prepare, out, num_videos)
        with ray_session(verbose=verbose, num_cpus=2), watching(console, show_run=True) as watcher:
            folder = preparing.result()
            comparing = beside.submit(_baselines, trials, folder, out)
            by_cost = sorted(trials, key=_cost, reverse=True)  # or one processor has nothing to do at the end
            result = run_sweep(space, by_cost, tags=provenance_tags(kind="trial"), watcher=watcher)
        tables = comparing.result()
    rows = {name: table.headline() for name, table in tables.items()}
    if result.failed:
        reasons = "; ".join(f"{failure.name}: {failure.reason}" for failure in result.failed)
        raise OvosError(f"{len(result.failed)} trials failed: {reasons}", "run it with --verbose")
    for name, table in tables.items():
        _log_baseline(space, trials[0].config, name, table, out.absolute())
    trained = {trial.name.removesuffix(" seed 0"): result.results[trial.name]["scores"] for trial in trials}
    console.print(_table(rows, trained))
    page = _report(space, trials[0].config, out)
    best = max(trained, key=lambda name: trained[name]["jf"])
    _picture(folder, trials, best, out)
    gain = trained[best]["jf"] - rows["copy the first mask"]["jf"]
    enough = gain >= _MARGIN
    values = {
        "baselines": rows,
        "trials": trained,
        "best": best,
        "points_above_copying": gain,
        "passed": enough,
        "steps": trials[0].config.train.steps,
        "seconds": time.perf_counter() - began,
        "report": page,
    }
    write_json(out / "demo.json", values)
    console.print(
        f"{best} is {gain:.1f} points of J&F above copying the first mask ({_MARGIN:g} are required); "
        f"one seed, so no ranking of the strategies",
    )
    console.print(f"report:  {page}\npicture: {out / 'demo.png'}\nnumbers: {out / 'demo.json'}")
    console.print(f"took {values['seconds']:.0f} s")
    return bool(enough)


def _cost(trial: Trial) -> tuple[bool, bool]:
    """Orders trials by what a step takes: the walk back over all frames twice that of two, XMem more than STCN."""
    return trial.config.method.backward == "T-step", trial.config.network.name.startswith("xmem")


def _trials(space: SearchSpace, config: ExperimentConfig) -> list[Trial]:
    """Returns the trials of the study and, beyond the paper, one with clips synthesised from the same labels."""
    trials, _ = expand(space, config)
    plain = next(trial for trial in trials if trial.name.startswith("stcn-tiny 2-step"))
    changes = {**_STATIC_CLIPS, "name": f"{plain.config.name}-static-clips"}
    name = plain.name.replace(" seed", " with static clips seed")
    return [*trials, Trial(name, {**plain.values, **_STATIC_CLIPS}, override(plain.config, changes))]


def _prepare(out: Path, num_videos: Mapping[str, int] | None) -> DatasetFolder:
    console.print(f"making the synthetic dataset in {out / 'dataset'}")
    with progress_bar() as bar:
        task = bar.add_task("making videos", total=None)
        synthetic.generate(
            out / "dataset",
            seed=0,
            num_videos=num_videos,
            progress=lambda done, total, _: bar.update(task, completed=done, total=total),
        )
    folder = open_dataset(out / "dataset", layout="davis2017")
    index = pack(folder, out / "shards", labels="first", split="train")
    console.print(f"packed {counted(len(index.videos), 'video')} with one label each: {index.budget}")
    return folder


def _baselines(trials: list[Trial], folder: DatasetFolder, out: Path) -> dict[str, ScoreTable]:
    """Scores copying, colour matching and untrained networks on the held-out videos."""
    evaluation, seed = trials[0].config.evaluation, trials[0].config.seed
    tables, protocol = {}, protocol_for(folder.description.layout)
    for name, baseline in _BASELINES.items():
        predictions = out / "baselines" / name.replace(" ", "-")
        predict_dataset(baseline, folder, evaluation.split, predictions)
        tables[name] = evaluate_folders(predictions, folder.root, protocol, num_processes=1)
    for network_name in dict.fromkeys(trial.config.network.name for trial in trials):
        network = networks.build(network_name, seed=seed)
        root = str(evaluation.root)
        tables[f"untrained {network_name}"] = evaluate_network(network, root=root, split=evaluation.split)
    for name, table in tables.items():
        console.print(f"{name}: J&F {table.jf:.1f}")
    return tables


def _log_baseline(space: SearchSpace, config: ExperimentConfig, name: str, table: ScoreTable, out: Path) -> None:
    from ovos_ray.study.run_study import sweep_key

    sink = Sink.open(
        config.tracking_uri,
        space.name,
        f"baseline:{config.storage}:{name}",
        name=name,
        parent_key=sweep_key(space, config.storage),
        tags={
            **provenance_tags(kind="baseline"),
            "ovos.predictions": str(out / "baselines" / name.replace(" ", "-")),
            "ovos.strategy": name,
        },
        spool=Path(config.storage) / "tracking" / name.replace(" ", "-"),
    )
    sink.log_metrics({f"final/{key}": value for key, value in table.headline().items()}, 0)
    sink.log_artifact(table.to_csv().encode(), "scores.csv")
    sink.finish()


def _report(space: SearchSpace, config: ExperimentConfig, out: Path) -> str:
    from ovos_ray.report.build import build_report
    from ovos_ray.track.leftovers import sync

    sync(Path(config.storage))
    return str(build_report(space.name, config.tracking_uri, out / "report").html)


def _picture(folder: DatasetFolder, trials: list[Trial], best: str, out: Path) -> None:
    config = next(trial.config for trial in trials if trial.name == f"{best} seed 0")
    predictions = {name: out / "baselines" / name.replace(" ", "-") for name in _BASELINES}
    predictions[f"one-shot: {best}"] = Path(config.storage) / config.name / "predictions"
    write_contact_sheet(folder, config.evaluation.split, predictions, out / "demo.png")


def _table(baselines: Mapping[str, Mapping[str, float]], trained: Mapping[str, Any]) -> Table:
    labels = (measure.label for measure in COMPARED)
    table = Table("", *labels, title="held-out synthetic videos, percent", title_justify="left")
    for name, scores in baselines.items():
        table.add_row(name, *(f"{scores[measure.key]:.1f}" for measure in COMPARED))
    table.add_section()
    for name, scores in trained.items():
        table.add_row(name, *(f"{scores[measure.key]:.1f}" for measure in COMPARED))
    return table
