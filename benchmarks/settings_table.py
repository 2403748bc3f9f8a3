"""The settings of the full-size recipes beside the published code's and the paper's, as docs/settings.md shows them.

`python benchmarks/settings_table.py > docs/settings.md` writes it anew; a test fails while it is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.overrides import flatten
from ovos_ray.config.recipes import make

NETWORKS = ("stcn", "xmem", "cutie")
STAGES = ("one_shot", "fully_supervised", "static_pretraining")

# Per setting: published by STCN, XMem and Cutie for the main stage, and the paper's words (section 4.1) for the three.
_MAIN: dict[str, tuple[str, str, str, str]] = {
    "data.clip_length": ("3", "8", "8", "3, 8, 8"),
    "data.batch_size": ("4 a process, 8 on two GPUs", "8", "16", "4, 8, 16"),
    "data.multipliers": ("DAVIS x5, by videos", "DAVIS x5, by videos", "DAVIS x2, by frames", "a concatenation"),
    "data.frame_intervals": ("YouTube-VOS 5", "YouTube-VOS 5", "YouTube-VOS 5, DAVIS 2", "-"),
    "data.frame_sampling": ("its own", "grown", "grown", "n ordered frames, at most D apart"),
    "data.label_side": ("-", "-", "-", "the first frame is the labelled one"),
    "data.clip_start": ("any", "any", "any", "includes the first frame"),
    "data.time_reversal": ("0.5", "0.5", "0.5", "-"),
    "data.clip_merging": ("-", "-", "0.5", "-"),
    "data.max_skip": (
        "5, 10, 15, 20, 25, 5 at 0, .1, .2, .3, .4, .9",
        "5, 10, 15, 5 at 0, .1, .3, .9 of 100,000",
        "5, 10, 15, 5 at 0, .1, .3, .8",
        "STCN: 5, 10, 15, 20, 25, 5 at 0, .1, .2, .3, .4, .8",
    ),
    "data.crop_size": ("384", "384", "480", "-"),
    "data.max_objects": ("2", "3", "3", "-"),
    "data.augmentation.interpolation": ("bicubic", "bilinear", "bilinear", "-"),
    "data.augmentation.horizontal_flip": ("0.5", "0.5", "0.5", "-"),
    "data.augmentation.crop_scale": ("0.36, 1", "0.36, 1", "0.36, 1", "-"),
    "data.augmentation.clip_rotation": ("0", "0", "25", "-"),
    "data.augmentation.clip_shear": ("0", "0", "20", "-"),
    "data.augmentation.clip_jitter": (".1, .03, .03, 0", ".1, .03, .03, 0", ".1, .03, .03, 0", "-"),
    "data.augmentation.grayscale": ("0.05", "0.05", "0.05", "-"),
    "data.augmentation.frame_rotation": ("15", "15", "0", "-"),
    "data.augmentation.frame_shear": ("10", "10", "0", "-"),
    "data.augmentation.frame_geometry_until": ("1", "100,000 of 110,000", "-", "-"),
    "data.augmentation.frame_jitter": (".01, .01, .01, 0", ".01, .01, .01, 0", ".1, .05, .05, 0, one draw a clip", "-"),
    "data.crop_tries": ("5, then an empty crop", "5, then an empty crop", "until one shows an object", "-"),
    "method.vanished": ("-", "-", "-", "nothing is said: keep"),
    "method.shared_intermediate": ("-", "-", "-", "drawn from each clip: no"),
    "method.rollout_memory": ("-", "all up to 3", "all up to 3", "equation 1: all"),
    "method.loss.cross_entropy": ("bootstrapped", "bootstrapped", "on points", "of each network"),
    "method.loss.dice": ("no", "yes", "yes", "of each network"),
    "method.loss.warm_up_start": ("20,000", "20,000", "-", "-"),
    "method.loss.warm_up_end": ("70,000", "70,000", "-", "-"),
    "method.loss.top_fraction": ("0.15", "0.15", "-", "-"),
    "method.loss.num_points": ("-", "-", "12,544", "-"),
    "method.loss.auxiliary_weight": ("-", "-", "0.01", "-"),
    "optimizer.name": ("Adam", "AdamW", "AdamW", "Adam, AdamW, AdamW"),
    "optimizer.learning_rate": ("1e-5", "1e-5", "1e-4", "1e-5, 1e-5, 1e-4"),
    "optimizer.weight_decay": ("1e-7", "0.05", "0.001", "1e-7, 0.05, 0.001"),
    "optimizer.epsilon": ("1e-8", "1e-8", "1e-6 under mixed precision", "-"),
    "optimizer.decay_steps": ("125,000", "80,000", "100,000, 115,000", "step decay"),
    "optimizer.decay_factor": ("0.1", "0.1", "0.1", "0.1"),
    "optimizer.backbone_multiplier": ("1", "1", "0.1", "-"),
    "optimizer.decay_embeddings": ("-", "-", "no", "-"),
    "optimizer.clip_norm": ("none", "none", "3", "-"),
    "train.steps": ("150,000", "100,000 + 10,000", "125,000", "-"),
    "train.num_workers": ("2 GPUs", "2 GPUs", "4 GPUs", "two GPUs"),
    "train.precision": ("fp16", "fp16", "fp16", "-"),
}
_STATIC: dict[str, tuple[str, str, str, str]] = {
    "data.clip_length": ("3", "3", "3", "-"),
    "data.batch_size": ("8 a process, 16 on two GPUs", "16", "16", "-"),
    "data.multipliers": ("BIG, HRSOD x5", "BIG, HRSOD x5", "BIG, HRSOD x5", "-"),
    "data.crop_size": ("384", "384", "384", "-"),
    "data.max_objects": ("1", "1", "1", "-"),
    "data.augmentation.clip_scale": ("0.8, 1.5", "0.8, 1.5", "0.5, 2", "-"),
    "data.augmentation.clip_jitter": (".1, .05, .05, .05", ".1, .05, .05, .05", ".1, .05, .05, .05", "-"),
    "data.augmentation.frame_rotation": ("20", "20", "20", "-"),
    "data.augmentation.frame_scale": ("0.9, 1.1", "0.9, 1.1", "0.5, 2", "-"),
    "data.augmentation.frame_shear": ("10", "10", "10", "-"),
    "data.augmentation.frame_jitter": (".1, .05, .05, 0", ".1, .05, .05, 0", ".1, .05, .05, 0", "-"),
    "data.augmentation.spline": ("0.33", "0.33", "0.33", "-"),
    "method.loss.num_points": ("-", "-", "8,192", "-"),
    "optimizer.learning_rate": ("1e-5", "1e-5", "1e-4", "-"),
    "optimizer.epsilon": ("1e-8", "1e-8", "1e-8", "-"),
    "optimizer.decay_steps": ("150,000", "none", "none", "-"),
    "train.steps": ("300,000", "150,000", "80,000", "-"),
    "train.precision": ("fp16", "fp16", "float32", "-"),
}


def render() -> str:
    """Returns the page: a table a network and stage, made from the recipes."""
    parts = [
        "# Setting by setting",
        "Our recipes beside the published code of each network and section 4.1 of the paper. Generated by",
        "`python benchmarks/settings_table.py > docs/settings.md`; a test holds it to the recipes. What differs beyond",
        "single values is listed in [reproducing](reproducing.md#differences-to-published-training).",
    ]
    made = {(stage, name): _values(f"trainables.{stage}.{name}") for stage in STAGES for name in NETWORKS}
    for column, name in enumerate(NETWORKS):
        one_shot, supervised = made["one_shot", name], made["fully_supervised", name]
        title = {"stcn": "STCN", "xmem": "XMem", "cutie": "Cutie"}[name]
        parts += [f"\n## {title}, videos\n"]
        rows = [
            (key, _shown(one_shot[key]), _shown(supervised[key]), row[column], row[3]) for key, row in _MAIN.items()
        ]
        parts += _table(("setting", "one-shot", "fully supervised", "published", "paper"), rows)
        static = made["static_pretraining", name]
        parts += [f"\n## {title}, stage 0\n"]
        static_rows = [(key, _shown(static[key]), row[column]) for key, row in _STATIC.items()]
        parts += _table(("setting", "ours", "published"), static_rows)
    return "\n".join(parts) + "\n"


def _values(recipe: str) -> Mapping[str, Any]:
    return flatten(make(recipe, ExperimentConfig))


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"({_shown(one)})" if isinstance(one, tuple) else _shown(one) for one in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]


if __name__ == "__main__":
    sys.stdout.write(render())
