"""What a report of many runs costs: python benchmarks/report.py [NUM_RUNS] [PAGE] (default 500 runs; PAGE keeps it).

Writes a synthetic study (strategies, networks, clip lengths, skip schedules, learning rates, three seeds each, twelve
sequences of 40 frames at 480p with stored predictions, a few failed and running trials) into an SQLite store, times
reading it and making the page, and opens the page in headless Chromium where there is one.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from browser import CHROMIUM, Browser
from synthetic_study import RawRun, curve, made_up_scores, save, save_mask, write_study

from ovos_ray.report.build import build_report
from ovos_ray.report.read import load_study

SEQUENCES = [f"sequence-{number:02d}" for number in range(12)]
FRAMES, HEIGHT, WIDTH = 40, 480, 854
AXES: tuple[tuple[Any, ...], ...] = (
    ("T-step", "2-step", "3-step", "empty"),
    ("stcn-tiny", "xmem-tiny", "cutie-tiny"),
    (3, 5, 8),
    (((0.0, 5),), ((0.0, 5), (0.1, 10), (0.3, 15), (0.8, 5))),
    (1e-4, 3e-4, 1e-3),
)


def make_videos(folder: Path) -> None:
    """Discs over smooth noise, in DAVIS 2017 layout, and for every strategy masks that lag behind them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for sequence in SEQUENCES:
        noise = Image.fromarray(rng.integers(0, 255, (30, 53, 3), np.uint8))
        background = np.asarray(noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        background = np.clip(background + rng.normal(0, 8, background.shape), 0, 255).astype(np.uint8)
        for t in range(FRAMES):
            masks = [_discs(x, y, max(0, t - lag)) for lag in range(len(AXES[0]))]
            frame = np.where(masks[0][..., None] > 0, np.uint8(230), background)
            save(folder / "data" / "JPEGImages" / "480p" / sequence / f"{t:05d}.jpg", frame)
            save_mask(folder / "data" / "Annotations" / "480p" / sequence / f"{t:05d}.png", masks[0])
            for lag, strategy in enumerate(AXES[0]):
                save_mask(folder / strategy / sequence / f"{t:05d}.png", masks[lag])
    for split in ("train", "val"):
        path = folder / "data" / "ImageSets" / "2017" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(SEQUENCES) + "\n")


def _discs(x: np.ndarray, y: np.ndarray, t: int) -> np.ndarray:
    one = (x - 200 - 10 * t) ** 2 + (y - 240) ** 2 < 80**2
    two = (x - 600 + 8 * t) ** 2 + (y - 150 - 3 * t) ** 2 < 60**2
    return np.where(two, 2, one).astype(np.uint8)


def make_runs(number: int, folder: Path) -> list[RawRun]:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 10, len(SEQUENCES))
    runs = [RawRun("copy the first mask", scores=made_up_scores(rng, 25, SEQUENCES, hardness), kind="baseline")]
    for strategy, network, length, skip, rate in itertools.product(*AXES):
        quality = 45 + 3 * AXES[0].index(strategy) % 7 + 2 * AXES[1].index(network) + rng.normal(0, 2)
        for seed in range(3):
            if len(runs) > number:
                return runs
            settings = {
                "method.backward": "2-step" if strategy == "empty" else strategy,
                "method.reference": "empty" if strategy == "empty" else "predicted",
                "network.name": network,
                "data.clip_length": length,
                "data.max_skip": skip,
                "optimizer.learning_rate": rate,
                "evaluation.root": str(folder / "data"),
            }
            draw = rng.random()
            status = "FAILED" if draw < 0.02 else "RUNNING" if draw < 0.04 else "FINISHED"
            scores = made_up_scores(rng, quality + rng.normal(0, 1), SEQUENCES, hardness)
            runs.append(
                RawRun(
                    f"{strategy}-{network}-{len(runs)}",
                    settings,
                    seed,
                    scores if status == "FINISHED" else {},
                    status,
                    tags={"ovos.label_percent": "1.4", "ovos.predictions": str(folder / strategy)},
                    curve=curve(quality, 10_000, 250),
                )
            )
    return runs


def interactive(page: Path, profile: Path) -> dict[str, float]:
    """Seconds from asking for the page until its table answers, and milliseconds of one sort and one search."""
    browser = Browser(profile)
    began = time.perf_counter()
    browser.show(page)
    while not browser.run("document.querySelector('#count')?.textContent ?? ''"):
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    header = "document.querySelectorAll('#results th button')[1]"
    timed = (
        "(work => { const t = performance.now(); work(); document.body.offsetHeight; return performance.now() - t })"
    )
    sort_ms = browser.run(f"{timed}(() => {header}.click())")
    search_ms = browser.run(f"{timed}(() => {{ document.querySelector('#search').value = 'xmem'; filter() }})")
    browser.close()
    return {"interactive_s": round(seconds, 2), "sort_ms": round(sort_ms), "search_ms": round(search_ms)}


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder}/mlflow.db"
        make_videos(folder)
        write_study(uri, "many", make_runs(number, folder))
        began = time.perf_counter()
        load_study("many", uri)
        read, processor = time.perf_counter(), time.process_time()
        report = build_report("many", uri, folder / "out")
        made, processor = time.perf_counter(), time.process_time() - processor
        result = {
            "runs": number,
            "configurations": len(report.comparison.rows),
            "read_s": round(read - began, 1),
            "report_s": round(made - read, 1),
            "report_processor_s": round(processor, 1),
            "page_MiB": round(report.html.stat().st_size / 2**20, 2),
            "films_MiB": round(sum(path.stat().st_size for path in report.html.parent.rglob("*.mp4")) / 2**20, 2),
            "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
            "load": os.getloadavg()[0],
        }
        if CHROMIUM is not None:
            result |= interactive(report.html, folder / "profile")
        if len(sys.argv) > 2:
            Path(sys.argv[2]).write_bytes(report.html.read_bytes())
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
