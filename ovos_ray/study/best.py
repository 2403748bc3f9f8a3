"""The best network of a study, kept as an MLflow model of the sweep's own run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ovos_ray.evaluate.metrics import PRIMARY
from ovos_ray.storage import Storage
from ovos_ray.study.space import Trial
from ovos_ray.study.summary import score_of
from ovos_ray.track.sink import Sink
from ovos_ray.train.run_folder import RunFolder

__all__ = ["log_best_network"]

_NAME = "best.json"


def log_best_network(
    parent: Sink,
    trials: Sequence[Trial],
    results: Mapping[str, Mapping[str, Any]],
    metric: str = f"final/{PRIMARY.key}",
) -> str | None:
    """Logs the network with the highest J&F to the sweep's run, once; `best.json` in the study's folder names it.

    A study that compares by its selection split (`val/jf`) chooses by that here too: never by what it reports.
    The models of the other trials stay in their run folders: hundreds of megabytes each.

    Returns:
        The name of the best trial, or None where nothing was scored.
    """
    ended = {trial.name: results[trial.name] for trial in trials if trial.name in results}
    found = {name: score_of(metric, one) for name, one in ended.items() if one["scores"] and not one.get("stopped")}
    scored = [(score, trial) for trial in trials if (score := found.get(trial.name)) is not None]
    if not scored:
        return None
    score, best = max(scored, key=lambda one: one[0])
    key = metric.removeprefix("final/")
    entry = {"trial": best.name, "run": best.config.name, key: score}
    storage = Storage(best.config.storage)
    if storage.exists(_NAME) and json.loads(storage.read(_NAME)) == entry:
        return best.name
    weights = RunFolder.of(best.config).storage.read("network.safetensors")
    parent.log_model(weights, network=best.config.network.name)
    parent.set_tags({"ovos.best_trial": best.name})
    storage.write(json.dumps(entry, indent=2).encode(), _NAME)
    return best.name
