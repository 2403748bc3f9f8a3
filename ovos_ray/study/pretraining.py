"""The pretrainings of a study: each is computed once, before the trials that start from it."""

from __future__ import annotations

from collections.abc import Mapping

from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder

__all__ = ["distinct_pretrainings", "without_failed_pretraining"]


def distinct_pretrainings(requests: Mapping[str, RunRequest]) -> dict[str, RunRequest]:
    """Returns the unfinished pretrainings that some runs ask for, by a name to show."""
    found = {}
    for request in requests.values():
        stage = request.pretraining
        if stage is not None and RunFolder.of(stage.config).result() is None:
            found[f"pretraining {stage.config.name}"] = stage
    return found


def without_failed_pretraining(requests: Mapping[str, RunRequest]) -> dict[str, RunRequest]:
    """Returns the runs whose pretraining is finished, or that have none; the others cannot start."""
    kept = {}
    for name, request in requests.items():
        stage = request.pretraining
        if stage is None or RunFolder.of(stage.config).result() is not None:
            kept[name] = request
        else:
            request.post(0, event=f"not run: its pretraining {stage.config.name} has failed", failed=True)
    return kept
