"""What an MLflow store holds of a run, read with MLflow's own client."""

from __future__ import annotations

from typing import Any


def the_run(client: Any, experiment: str, key: str) -> Any:
    """The only run with this key."""
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], f"tags.`ovos.run_key` = '{key}'")
    assert len(runs) == 1
    return runs[0]


def history(client: Any, run: Any, key: str) -> list[tuple[int, float]]:
    """All points of a metric as the store gives them, (step, value) by step; a double would be seen."""
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


def loss(step: int) -> float:
    return 1 / (step + 1)
