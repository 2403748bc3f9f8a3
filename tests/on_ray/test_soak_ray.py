"""Many runs on one cluster leave nothing behind in it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from runs import config_of, make_shards

from ovos_ray.run.request import RunRequest

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
]


def test_twenty_runs_leave_no_actors_reservations_or_objects(tmp_path: Path) -> None:
    import ray
    from ray.util import placement_group_table
    from ray.util.state import list_actors

    from ovos_ray.on_ray.fit import fit

    shards = make_shards(tmp_path / "data")
    stored = []
    for number in range(20):
        config = config_of(shards, tmp_path, name=f"run-{number}", **{"train.steps": 2, "data.crop_size": 32})
        fit(RunRequest(config, "none", config.name))
        stored.append(ray.cluster_resources()["object_store_memory"] - ray.available_resources()["object_store_memory"])
    deadline = time.monotonic() + 60

    def left() -> tuple[int, int]:
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        return len(list_actors(filters=[("state", "=", "ALIVE")])), len(groups)

    while left()[1] and time.monotonic() < deadline:
        time.sleep(0.5)
    actors, groups = left()
    assert groups == 0
    assert actors <= 5, "Ray's own of the last run: Train's controller and Data's statistics"
    assert stored[-1] <= stored[1] + 10 * 2**20, f"the object store grows: {stored}"
