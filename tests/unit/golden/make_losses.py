"""Writes the first 50 losses of each tiny trainable anew; run it from the repository root:

python tests/unit/golden/make_losses.py
To be run when a change is meant to alter results, and said so in the CHANGELOG.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.run.here import local_stream
from ovos_ray.run.loop import train_run
from ovos_ray.run.request import RunRequest

FILE = Path(__file__).with_name("losses.json")
STEPS = 50
RECIPES = (
    "empty_reference",
    "fine_tuning",
    "fully_supervised",
    "one_shot",
    "one_shot.with_static_clips",
    "static_pretraining",
    "synthetic",
    "synthetic.with_static_clips",
    "synthetic.static_only",
)


def machine() -> dict[str, str]:
    """What the last bits of a loss depend on. With the same instructions, one maker's kernels sum in another order."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    maker = next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
    processor = f"{platform.machine()} {maker} {torch.backends.cpu.get_cpu_capability()}"
    return {"processor": processor, "torch": torch.__version__, "numpy": np.__version__}


def make_data(root: Path) -> None:
    """Six short synthetic videos, with one label each and with all."""
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=8)
    synthetic.generate(root / "dataset", seed=3, num_videos={"train": 6}, config=small)
    for labels in ("first", "all"):
        pack(open_dataset(root / "dataset"), root / labels, labels=labels, split="train")


class _EnoughError(Exception):
    """The losses that were asked for are there."""


def losses(recipe: str, root: Path, first: int = STEPS) -> list[float]:
    """Trains a recipe on those videos, in small, and returns the first losses, NaN where none was compared."""
    changes: dict[str, Any] = {
        "data.shards": (str(root / "first"),),
        "data.multipliers": (),
        "data.frame_intervals": (),
        "data.crop_size": 48,
        "data.batch_size": 2,
        "network.init": "random",
        "pretrain": None,
        "validation.root": None,
        "evaluation.root": None,
        "train.steps": STEPS,
        "train.log_every": 1,
        "train.checkpoint_every": STEPS,
        "storage": str(root / "runs" / recipe),
        "tracking_uri": "",
    }
    config = make(f"trainables.{recipe}", ExperimentConfig)
    if config.method.name == "supervised" and config.data.source != "static":
        changes["data.shards"] = (str(root / "all"),)
    config = override(config, changes)
    found: dict[int, float] = {}

    def watch(record: dict[str, Any]) -> None:
        # On static steps the loss has another name; where no sample had an object there is none.
        values = [record[name] for name in ("train/loss", "train/static_loss") if name in record]
        if "train/learning_rate" in record:
            found[record["step"]] = float(values[0]) if values else math.nan
        if len(found) == first:
            raise _EnoughError

    with suppress(_EnoughError):
        train_run(RunRequest(config, "golden", recipe, watcher=watch), local_stream(config))
    return [found[step] for step in range(1, first + 1)]


if __name__ == "__main__":
    sys.path.append(str(Path.cwd()))
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name))
        content = {"machine": machine(), "losses": {recipe: losses(recipe, Path(name)) for recipe in RECIPES}}
    # Those of other machines stay where they are the same but for rounding; else they are of the code of before.
    others = [
        one
        for one in json.loads(FILE.read_text())
        if one["machine"] != content["machine"]
        and all(np.allclose(one["losses"][r][:5], content["losses"][r][:5], rtol=1e-4) for r in RECIPES)
    ]
    FILE.write_text(json.dumps([*others, content], indent=1) + "\n")
