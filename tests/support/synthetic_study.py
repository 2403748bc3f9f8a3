"""A study with known numbers, written straight into an MLflow store: raw scores in, nothing of ovos_ray in between."""

from __future__ import annotations

import csv
import io
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.report.runs import Run

Table = dict[tuple[str, int], tuple[float, float]]
"""(sequence, object) → (J mean, F mean) in percent."""


@dataclass
class RawRun:
    """One run as it was made up."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    scores: Table = field(default_factory=dict)
    status: str = "FINISHED"
    kind: str = "trial"
    tags: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[tuple[int, float]] = ()

    @property
    def j(self) -> float:
        return float(np.mean([j for j, _ in self.scores.values()]))

    @property
    def f(self) -> float:
        return float(np.mean([f for _, f in self.scores.values()]))


def made_up_scores(rng: np.random.Generator, quality: float, sequences: Sequence[str], hardness: np.ndarray) -> Table:
    """Two objects a sequence; `hardness` is what a sequence takes from everybody's score."""
    table = {}
    for sequence, hard in zip(sequences, hardness, strict=True):
        for index in (1, 2):
            j = float(np.clip(quality - hard + rng.normal(0, 2), 0, 100))
            table[sequence, index] = (j, float(np.clip(j + rng.normal(3, 1), 0, 100)))
    return table


def curve(quality: float, steps: int = 600, every: int = 100) -> list[tuple[int, float]]:
    return [(step, quality * (1 - float(np.exp(-(step + 40) / 200)))) for step in range(0, steps + 1, every)]


def memory_run(strategy: str, seed: int, scores: dict[tuple[str, int], tuple[float, float]], **changes: object) -> Run:
    """A run as `load_study` would have read it, without any store."""
    j = statistics.fmean(v[0] for v in scores.values())
    f = statistics.fmean(v[1] for v in scores.values())
    values: dict[str, object] = {
        "run_id": f"{strategy}{seed}",
        "name": strategy,
        "kind": "trial",
        "status": "finished",
        "seed": seed,
        "params": {"method.backward": strategy, "network.name": "xmem", "method.name": "one_shot"},
        "tags": {},
        "metrics": {"final/jf": (j + f) / 2, "final/j": j, "final/f": f},
        "start_ms": seed,
        "scores": {(s, str(o)): {"j_mean": v[0], "f_mean": v[1]} for (s, o), v in scores.items()},
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


def write_study(tracking_uri: str, experiment: str, runs: Sequence[RawRun]) -> str:
    """Writes the runs under one parent; returns the parent's run id."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(tracking_uri)
    folder = Path(tracking_uri.removeprefix("sqlite:///")).parent / "mlruns" / experiment
    experiment_id = client.create_experiment(experiment, artifact_location=folder.as_uri())
    parent = client.create_run(experiment_id, run_name="sweep", tags={"ovos.kind": "sweep"})
    now = time.time_ns() // 1_000_000
    for number, raw in enumerate(runs):
        config = override(ExperimentConfig(name=raw.name, seed=raw.seed), raw.settings)
        run = client.create_run(experiment_id, start_time=now + number, run_name=raw.name)
        tags = {"ovos.kind": raw.kind, "mlflow.parentRunId": parent.info.run_id, **raw.tags}
        params = {}
        if raw.kind == "trial":
            tags["ovos.seed"] = str(raw.seed)
            params = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(config).items()}
        metrics = [Metric("val/jf", value, now, step) for step, value in raw.curve]
        if raw.scores:
            final = {"final/jf": (raw.j + raw.f) / 2, "final/j": raw.j, "final/f": raw.f}
            metrics += [Metric(key, value, now, 0) for key, value in final.items()]
            path = Path(unquote(run.info.artifact_uri.removeprefix("file://"))) / "scores.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(scores_csv(raw.scores))
        client.log_batch(run.info.run_id, metrics)
        for start in range(0, len(params), 100):  # at most so many a request
            client.log_batch(
                run.info.run_id, params=[Param(k, v) for k, v in list(params.items())[start : start + 100]]
            )
        client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        if raw.status != "RUNNING":
            client.set_terminated(run.info.run_id, raw.status, now + number + 90_000)
    client.set_terminated(parent.info.run_id)
    return str(parent.info.run_id)


def scores_csv(scores: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["sequence", "object", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay"])
    for (sequence, index), (j, f) in scores.items():
        writer.writerow([sequence, index, j, 50.0, 5.0, f, 50.0, 5.0])
    return out.getvalue()


def write_videos(root: Path, sequences: Sequence[str], *, frames: int = 6, shift: int = 8) -> None:
    """A 24 x 24 square over noise that moves `shift` pixels a frame, in DAVIS 2017 layout."""
    rng = np.random.default_rng(0)
    for sequence in sequences:
        background = rng.integers(60, 200, (64, 128, 3), np.uint8)
        for t in range(frames):
            mask = square(t * shift)
            image = np.where(mask[..., None] > 0, np.uint8(230), background)
            save(root / "JPEGImages" / "480p" / sequence / f"{t:05d}.jpg", image)
            save_mask(root / "Annotations" / "480p" / sequence / f"{t:05d}.png", mask)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(sequences) + "\n")
    (lists / "train.txt").write_text("\n".join(sequences) + "\n")


def square(x: int) -> np.ndarray:
    mask = np.zeros((64, 128), np.uint8)
    mask[20:44, x : x + 24] = 1
    return mask


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def save_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    image.save(path)
