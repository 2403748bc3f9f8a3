"""A model card: what a stranger must know of the weights of a run, without the paths of this machine."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from ovos_ray.errors import WeightsError
from ovos_ray.storage import Storage, location_of

__all__ = ["model_card"]

_TOLD = {
    "network": ("name",),
    "method": None,
    "data": ("clip_length", "max_skip", "batch_size", "crop_size", "label_side"),
    "optimizer": None,
    "train": ("steps",),
}
"""Settings of the card by their part of the configuration; None: all of them. None is a path or an address."""


def model_card(run: str | Path, file: str, sha256: str) -> str:
    """Returns the card as Markdown, with the front matter that the Hugging Face Hub reads.

    `run` is the folder or URI of a finished run, `file` the name of its exported weights.

    Raises:
        WeightsError: The run has no result.
        StorageError: The bucket cannot be reached.
    """
    folder = Storage(location_of(run))
    if not folder.exists("result.json") or not folder.exists("config.json"):
        raise WeightsError(
            f"{folder.folder} is not a finished run: it has no result.json", "train it to its end, then export it"
        )
    result, config = json.loads(folder.read("result.json")), json.loads(folder.read("config.json"))["config"]
    labels = result.get("labels", {})
    used, total = labels.get("training", 0), labels.get("training_frames", 0)
    budget = f"{used} of {total} training frames ({100 * used / total:.1f} %)" if total else "not counted"
    if labels.get("validation"):
        budget += f"; {labels['validation']} frames to choose the checkpoint"
    if labels.get("pretraining"):
        budget += f"; {labels['pretraining']} labelled images in pretraining"
    scores = {key: value for key, value in (result.get("scores") or {}).items() if isinstance(value, int | float)}
    shown = ", ".join(f"{key.upper().replace('JF', 'J&F')} {value:.1f}" for key, value in scores.items())
    evaluation = config.get("evaluation") or {}
    scored = evaluation.get("root") or evaluation.get("shards")
    where = f" on {PurePath(scored).name} {evaluation.get('split', '')}" if scored else ""
    network, start = config["network"]["name"], PurePath(str(config["network"].get("init", "auto"))).name
    rows = [
        ("network", f"`{network}`, started from `{start}`"),
        ("label budget", budget),
        ("trained on", ", ".join(f"`{PurePath(str(folder)).name}`" for folder in config["data"].get("shards", ()))),
        ("scores", f"{shown}{where}" if shown else "not scored"),
        ("steps", f"{result.get('steps')}, checkpoint: {(result.get('checkpoint') or {}).get('rule', 'last')}"),
        ("seed", config.get("seed")),
        ("digest of the configuration", f"`{result.get('digest')}`"),
        ("SHA-256", f"`{sha256}`"),
    ]
    given = "--frames clip.mp4 --mask mask.png --out predictions"
    use = f"ovos-ray predict --checkpoint {file} --network {network} {given}"
    if file.endswith(".pt2"):
        use = f'program = torch.export.load("{file.replace(".pt2", ".encode.pt2")}").module()  # and memorise, segment'
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return f"""---
library_name: ovos-ray
tags: [video-object-segmentation, {network}]
---
# {result.get("name", PurePath(run).name)}

Weights of a network that follows objects through a video from one mask, trained with ovos_ray.

| | |
|---|---|
{table}

    {use}

The settings that made it:

```json
{json.dumps(_told(config), indent=2)}
```
"""


def _told(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, names in _TOLD.items():
        settings = config.get(part) or {}
        found[part] = {key: value for key, value in settings.items() if names is None or key in names}
    return found
