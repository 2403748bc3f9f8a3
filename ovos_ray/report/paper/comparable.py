"""Comparable or not: whether a run of ours was made as a published row was, and in what it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ovos_ray.config import INITS
from ovos_ray.report.numbers.rows import Row
from ovos_ray.report.paper.published import published
from ovos_ray.report.runs import Run
from ovos_ray.track.strategy import EMPTY, SUPERVISED

__all__ = ["belongs", "differences"]

_STAGE_0, _IMAGENET, _RANDOM, _UNKNOWN = "static-image pretraining", "ImageNet weights", "random weights", "unknown"
_SETTINGS = (("train.steps", "steps"), ("data.clip_length", "frames a clip"), ("data.batch_size", "clips a batch"))


def _initialisation(run: Run, declared: Sequence[str]) -> str:
    """What the run started from; a weights file that nobody declares to be stage 0 is a class of its own."""
    init = run.param("network.init")
    if not init:
        return _UNKNOWN
    if init not in INITS:
        path = PurePath(init)
        if path.name in (*published()["stage_0"], *(PurePath(name).name for name in declared)):
            return _STAGE_0
        return f"{path.parent.name}/{path.name}" if path.name == "network.safetensors" else path.name
    if run.param("pretrain.recipe"):
        changes = run.param("pretrain.overrides").strip("[]")
        return f"{_STAGE_0} with {changes}" if changes else _STAGE_0
    full_size = run.param("network.name") in {training["network"] for training in published()["training"].values()}
    return _IMAGENET if init == "imagenet" or (init == "auto" and full_size) else _RANDOM


def belongs(row: Row, match: Mapping[str, Any], declared: Sequence[str] = ()) -> bool:
    """Whether a configuration belongs to a published row: its network, in any size, and its way of training.

    Args:
        row: The configuration.
        match: Of the published row: `network`, `one_shot`, and `pretrained` and `strategy` where it says so.
        declared: Names of weights files that hold official stage-0 weights.
    """
    if row.network.partition("-")[0] != match["network"] or row.strategy == EMPTY:
        return False
    if match["one_shot"] != (row.strategy != SUPERVISED) or match.get("strategy", row.strategy) != row.strategy:
        return False
    scratch = _initialisation(row.runs[0], declared) in (_IMAGENET, _RANDOM, _UNKNOWN)
    return "pretrained" not in match or match["pretrained"] is not scratch


def differences(row: Row, match: Mapping[str, Any], declared: Sequence[str] = ()) -> list[str]:
    """Returns in what a configuration was not trained as the published row it belongs to; empty if in nothing.

    See `belongs` for the arguments.
    """
    run, training = row.runs[0], published()["training"][match["network"]]
    if row.network != training["network"]:
        return [f"{row.network} is not the paper's network"]
    found = []
    # Fully supervised rows are those of the networks' own papers, which start from stage 0, too.
    start, expected = _initialisation(run, declared), _STAGE_0 if match.get("pretrained", True) else _IMAGENET
    if start == _UNKNOWN:
        found.append("what it started from is not known")
    elif start != expected:
        found.append(f"initialised from {start}, not {expected}")
    for key, words in _SETTINGS:
        ours, theirs = run.param(key), training[key]
        if ours not in map(str, theirs):
            found.append(f"{_count(ours)} {words}, not {' or '.join(map(_count, theirs))}")
    return found


def _count(number: object) -> str:
    return f"{int(str(number)):,}" if str(number).isdecimal() else "unknown"
