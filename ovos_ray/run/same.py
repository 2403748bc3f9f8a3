"""The same experiment is trained once: a finished run of the same digest is taken over by whoever asks for it again.

Four studies of the paper contain XMem with 2-step; one trains it. The others get its weights, scores and MLflow run
entry, and say where these come from. The masks that were scored stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ovos_ray.config import ExperimentConfig
from ovos_ray.config.digest import digest, is_pinned
from ovos_ray.errors import OvosError
from ovos_ray.evaluate.evaluation import benchmarks
from ovos_ray.evaluate.score.server import SERVER_TAG
from ovos_ray.networks.weight_files import DIGEST_KEY
from ovos_ray.run.request import RunRequest
from ovos_ray.run.result import NOTES_TAG, notes_text
from ovos_ray.run.run_log import RunLog
from ovos_ray.storage import Storage
from ovos_ray.track.bucket import finish_and_keep
from ovos_ray.train.run_folder import RunFolder

__all__ = ["finished_below", "same_run", "take_over", "was_taken_over"]

_NO_RUNS = ("imagenet", "pretraining", "ray", "replaced", "tracking")
_DEPTH = 4
_FILES = ("network.safetensors", "network_ema.safetensors")


def finished_below(storage: str) -> dict[str, RunFolder]:
    """Returns the finished runs below a storage by digest, studies' trials included; the first by name of equal ones.

    Folders are listed down to those of runs, whose content (checkpoints, masks) is not looked at.
    """
    found: dict[str, RunFolder] = {}
    _collect(Storage(storage), _DEPTH, found)
    return found


def _collect(place: Storage, depth: int, found: dict[str, RunFolder]) -> None:
    for name in sorted(set(place.folders()) - {*_NO_RUNS}):
        folder = RunFolder(place / name)
        try:
            result = folder.result()
            if result is not None and not {"stopped", "diverged", "taken_over"} & result.keys():
                found.setdefault(str(result.get("digest")), folder)
            elif result is None and depth > 1 and not folder.claimed:
                _collect(folder.storage, depth - 1, found)
        except OvosError:  # a damaged result is nobody's to take
            continue


def same_run(config: ExperimentConfig, finished: Mapping[str, RunFolder]) -> RunFolder | None:
    """Returns a finished run that computed the same and left all that is wanted of this one; None: train it.

    Args:
        config: With its data and weights pinned: without them, equal digests say too little.
        finished: From `finished_below`.
    """
    folder = finished.get(digest(config)) if is_pinned(config) else None
    if folder is None or RunFolder.of(config).claimed:
        return None
    result = {"scores": {}, **(folder.result() or {})}
    unscored = [
        one
        for one in benchmarks(config.evaluation)
        if not {one.metric("jf"), one.metric("g")} & result["scores"].keys()
    ]
    missing = any(one.root not in _for_a_server(result) for one in unscored)
    whole = all(folder.storage.exists(name) for name in result.get(DIGEST_KEY, {"network.safetensors": ""}))
    return folder if whole and not missing else None


def _for_a_server(result: Mapping[str, Any]) -> set[str]:
    """Returns the datasets of which only a server has the annotations: training again would not score them."""
    return {root for root, why in result.get("not_scored", {}).items() if "ovos-ray submission" in why}


def take_over(request: RunRequest, source: RunFolder) -> dict[str, Any]:
    """Makes the result of a finished run that of another one of the same digest, in its folder and in MLflow.

    Returns:
        Content of its `result.json`; `taken_over` says from where.
    """
    config, folder = request.config, RunFolder.of(request.config)
    result = source.result() or {}
    folder.claim(config)
    log = RunLog(request, rank=0, start_step=config.start_step, device=torch.device("cpu"))
    where = source.storage.folder
    log.say(config.stop_step, f"taken over: the same run is finished in {where} (--again trains it again)")
    for name in _FILES:
        if source.storage.exists(name):
            folder.storage.write(source.storage.read(name), name)
    for name in _tables(config):
        if source.storage.exists(name):
            content = source.storage.read(name)
            folder.storage.write(content, name)
            log.sink.log_artifact(content, name)
    tags = {"ovos.taken_over": where, "ovos.taken_over_run": result.get("tracking_run") or ""}
    if source.storage.exists("scores.csv"):
        tags["ovos.predictions"] = (source.storage / "predictions").folder
    tags |= {SERVER_TAG + name: dataset for name, dataset in result.get("servers", {}).items()}
    if notes := notes_text(result.get("score_notes", {})):
        tags[NOTES_TAG] = notes
    if choice := result.get("checkpoint"):
        tags["ovos.checkpoint"] = f"{choice['rule']}, step {choice['step']}"
    log.sink.set_tags({**tags, "ovos.checkpoints": source.checkpoints().storage.folder})
    log.sink.log_metrics({f"final/{name}": value for name, value in result.get("scores", {}).items()}, 0)
    finish_and_keep(log.sink, folder.storage)
    own = {"name": config.name, "taken_over": where, "tracking_run": log.sink.run_id}
    folder.finish({**result, **own})
    return {**result, **own}


def was_taken_over(config: ExperimentConfig) -> bool:
    """Whether the result in a run's folder is that of another run."""
    return "taken_over" in (RunFolder.of(config).result() or {})


def _tables(config: ExperimentConfig) -> list[str]:
    ends = [one.suffix for one in benchmarks(config.evaluation)]
    return [f"scores{prefix}{end}.csv" for prefix in ("", "-ema") for end in dict.fromkeys(["", *ends])]
