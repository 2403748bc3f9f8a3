"""Pages of reports for a browser to open, and what their run folders hold, read without the report's code.

One of a made-up study, two of real ones, shortened: the demo's sweep on Ray and the synthetic study without it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from synthetic_study import RawRun, curve, made_up_scores, save_mask, square, write_study, write_videos

from ovos_ray.cli.demo_chain import run_demo
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.report.build import build_report

REPOSITORY = Path(__file__).resolve().parents[2]
STUDY_SETTINGS = (
    "seeds=0 train.steps=6 train.log_every=2 train.checkpoint_every=3 train.snapshot_every=3 data.crop_size=48 "
    "data.batch_size=2 optimizer.warm_up_steps=1 optimizer.decay_steps=4 validation.every=3 validation.num_videos=1"
)


@dataclass(frozen=True)
class StudyPage:
    """A page and the truth about its study.

    Attributes:
        html: The page.
        scores: By label of a row, (J, F) of every scored run in percent; without any where none was scored.
        labels: By label of a row, the labels behind it as `result.json` counts them.
        predicted: By label of a row, a folder with its masks.
        dataset: Folder of what was scored, in DAVIS 2017 layout.
    """

    html: Path
    scores: Mapping[str, list[tuple[float, float]]]
    labels: Mapping[str, dict[str, int]] = field(default_factory=dict)
    predicted: Mapping[str, Path] = field(default_factory=dict)
    dataset: Path = Path()


def made_up_page(folder: Path) -> StudyPage:
    """The page of a study with pictures, unfinished trials and names that would break careless HTML."""
    rng = np.random.default_rng(0)
    sequences = ["camel", "goat", "india"]
    write_videos(folder / "data", sequences)
    hardness = np.array([0.0, 5.0, 12.0])
    runs = []
    for strategy, quality, shift in (("2-step", 60.0, 8), ("T-step", 40.0, 0)):
        for seed in range(2):
            settings = {
                "method.backward": strategy,
                "evaluation.root": str(folder / "data"),
                "evaluation.protocol": "davis2017",
                "data.max_skip": ((0.0, 5), (0.1, 10), (0.8, 5)),
            }
            predictions = folder / strategy / str(seed)
            for sequence in sequences:
                for t in range(6):
                    save_mask(predictions / sequence / f"{t:05d}.png", square(t * shift))
            scores = made_up_scores(rng, quality, sequences, hardness)
            scores = {key: value for key, value in scores.items() if key[1] == 1}
            tags = {"ovos.predictions": str(predictions), "ovos.label_percent": "1.4"}
            runs.append(RawRun(f"{strategy}-{seed}", settings, seed, scores, tags=tags, curve=curve(quality)))
    runs.append(RawRun("broken", {"method.backward": "3-step"}, 0, status="FAILED", tags={"ovos.error": "<b>no</b>"}))
    runs.append(RawRun('copy "the" <first> mask', scores={("camel", 1): (20.0, 20.0)}, kind="baseline"))
    uri = f"sqlite:///{folder}/mlflow.db"
    write_study(uri, "study & <script>", runs)
    report = build_report("study & <script>", uri, folder / "out")
    attached = {path.name for path in (folder / "mlruns").rglob("figures/*")}
    assert attached == {f"{sequence}.jpg" for sequence in sequences}
    expected: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        name = run.name if run.kind == "baseline" else f"{run.settings['method.backward']} · xmem-tiny"
        expected[name] += [(run.j, run.f)] if run.scores else []
    return StudyPage(report.html, expected)


def demo_page(folder: Path) -> StudyPage:
    """The demo on fewer videos and for a few steps, which teaches nothing; on the cluster at hand."""
    run_demo(folder, steps=4, num_videos={"train": 6, "select": 1, "val": 6})
    numbers = json.loads((folder / "demo.json").read_text())
    baselines = {name: [(scores["j"], scores["f"])] for name, scores in numbers["baselines"].items()}
    return _read(folder / "report" / "report.html", folder / "runs", folder / "dataset", baselines)


def synthetic_study_page(folder: Path) -> StudyPage:
    """`search_spaces.paper_claims` as a user runs and reports it, on small videos and for a few steps."""
    small = synthetic.SyntheticConfig(height=48, width=80, num_frames=8)
    splits = {"train": 6, "select": 1, "val": 6}
    dataset = open_dataset(synthetic.generate(folder / "study" / "dataset", num_videos=splits, config=small))
    for labels in ("first", "all"):
        pack(dataset, folder / "study" / "shards" / labels, labels=labels, split="train")
    _command(folder, f"sweep search_spaces.paper_claims --no-ray --num-processes 2 {STUDY_SETTINGS}")
    _command(folder, "report paper_claims --tracking-uri sqlite:///study/mlflow.db --out report")
    return _read(folder / "report" / "report.html", folder / "study" / "runs", dataset.root, {})


def _command(folder: Path, words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "ovos_ray", *words.split()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _read(html: Path, storage: Path, dataset: Path, baselines: Mapping[str, list[tuple[float, float]]]) -> StudyPage:
    scores, labels, predicted = defaultdict(list, baselines), {}, {}
    for result in sorted(storage.glob("*/*/result.json")):
        run, found = result.parent, json.loads(result.read_text())
        config = json.loads((run / "config.json").read_text())["config"]
        method = config["method"]
        strategy = method["backward"] if method["reference"] == "predicted" else "empty reference"
        strategy = "fully supervised" if method["name"] == "supervised" else strategy
        name = f"{strategy} · {config['network']['name']}"
        if share := config["data"]["static_share"]:
            name += f" · static steps {'→'.join(f'{part:g}' for _, part in share)}"
        with (run / "scores.csv").open() as file:
            rows = list(csv.DictReader(file))
        j, f = (float(np.mean([float(row[f"{key}_mean"]) for row in rows])) for key in "jf")
        assert np.allclose([j, f], [found["scores"]["j"], found["scores"]["f"]])
        scores[name].append((j, f))
        labels[name] = found["labels"]
        predicted.setdefault(name, run / "predictions")
    return StudyPage(html, scores, labels, predicted, dataset)
