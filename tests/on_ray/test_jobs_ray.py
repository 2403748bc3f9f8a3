"""A study as jobs of a real cluster: submitted over HTTP with a token, followed, tracked on an MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY
from processes import MlflowServer, RayHead
from tiny_study import make_dataset
from typer.testing import CliRunner

from ovos_ray.cli.app import app

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "one-shot-one-shot-one-shot"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster that asks for a token, an MLflow server, and a dataset of four tiny videos."""
    root = tmp_path_factory.mktemp("jobs")
    make_dataset(root)
    server = MlflowServer(root)
    server.start(wait=False)
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="ovos-ray-") as short:
        head = RayHead(Path(short) / "ray", {**_TOKEN, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}, num_cpus=2)
        try:
            server.wait()
            yield SimpleNamespace(root=root, server=server, head=head)
        finally:
            head.stop()
            server.kill()


def run(
    place: SimpleNamespace, *command: str, cwd: Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")}
    variables = {**clean, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": place.head.address, **environment}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def study(place: SimpleNamespace) -> list[str]:
    """A sweep of two trials of 20 steps, in paths that a job finds wherever it runs."""
    settings = {
        "data.shards": place.root / "shards",
        "evaluation.root": place.root / "dataset",
        "storage": place.root / "runs",
        "tracking_uri": place.server.uri,
        "network.name": "stcn-tiny",
        "data.crop_size": 48,
        "data.clip_length": 4,
        "data.batch_size": 2,
    }
    changes = [f"{key}={value}" for key, value in settings.items()]
    return ["sweep", "search_spaces.smoke", "--max-concurrent", "1", *changes]


def runs_of(place: SimpleNamespace, kind: str) -> list[Any]:
    client = place.server.client()
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`ovos.kind` = '{kind}'"))


def finished_at(place: SimpleNamespace) -> dict[Path, int]:
    """When each trial was finished; Tune keeps result files of its own elsewhere."""
    return {path: path.stat().st_mtime_ns for path in (place.root / "runs" / "smoke").glob("*-seed-0/result.json")}


def test_a_study_is_submitted_followed_and_read_from_the_server(place: SimpleNamespace) -> None:
    first = run(
        place, "-m", "ray.scripts.scripts", "job", "submit", "--submission-id", "plain", "--working-dir", ".", "--",
        "python", "-m", "ovos_ray", *study(place), **_TOKEN,
    )  # fmt: skip
    assert first.returncode == 0, first.stdout
    assert "finished" in first.stdout, "the log was followed"
    children, (parent,) = runs_of(place, "trial"), runs_of(place, "sweep")
    assert len(children) == 2
    client = place.server.client()
    for child in children:
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["ovos.ray_job_id"] == "plain"
        points = client.get_metric_history(child.info.run_id, "train/loss")
        assert [point.step for point in points] == [5, 10, 15, 20]
        assert 0 <= child.data.metrics["final/jf"] <= 100
        assert {"config.json", "scores.csv"} <= {file.path for file in client.list_artifacts(child.info.run_id)}
    stamps = finished_at(place)
    assert len(stamps) == 2

    # The same study once more, by the verb: it finds what is finished and computes nothing.
    again = run(place, "-m", "ovos_ray", "submit", "--submission-id", "verb", "--", *study(place), **_TOKEN)
    assert again.returncode == 0, again.stdout
    assert "job verb succeeded" in again.stdout
    assert "ovos-ray report smoke" in again.stdout, "the log was followed"
    assert finished_at(place) == stamps
    assert len(runs_of(place, "trial")) == 2, "no second runs"


_TOLD = """
import os
import ray
import ovos_ray
from ovos_ray.config import override
from ovos_ray.on_ray.session import ray_session
from trainables import one_shot  # which comes along, too


def mine():
    print("program", ovos_ray.__file__)
    with ray_session():
        told = ray.get(ray.remote(lambda: os.environ.get("RAY_ADDRESS")).remote())
        print("knows its cluster:", told == ray.get_runtime_context().gcs_address)
    return override(one_shot.one_shot(), {"name": "a-recipe-of-mine"})


if __name__ == "__main__":
    mine()
"""


def test_a_folder_of_recipes_alone_brings_the_program_along_and_workers_know_their_cluster(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(_TOLD)
    job = run(place, "-m", "ovos_ray", "submit", "--", "show", "mine", cwd=tmp_path, **_TOKEN)
    assert job.returncode == 0, job.stdout
    assert "a-recipe-of-mine" in job.stdout
    assert "/py_modules_files/" in job.stdout.partition("program ")[2].splitlines()[0]
    attached = run(place, "mine.py", cwd=tmp_path, **{**_TOKEN, "RAY_ADDRESS": place.head.gcs_address})
    for told in (job, attached):
        assert "knows its cluster: True" in told.stdout, told.stdout


def test_the_doctor_names_the_version_of_the_tracking_server(place: SimpleNamespace) -> None:
    seen = CliRunner().invoke(app, ["doctor", "--tracking-uri", place.server.uri])
    assert f"MLflow {metadata.version('mlflow')}" in seen.output.partition("tracking http")[2], seen.output


def test_a_job_that_fails_hands_on_its_exit_status_and_its_reason(place: SimpleNamespace) -> None:
    failed = run(place, "-m", "ovos_ray", "submit", "--", "verify", str(place.root / "nowhere"), **_TOKEN)
    assert failed.returncode == 1
    assert "no shards here" in failed.stdout
    assert "failed with exit status 1" in failed.stdout


@pytest.mark.parametrize(
    ("token", "said"), [({}, "Missing authentication token"), ({"RAY_AUTH_TOKEN": "wrong" * 5}, "Invalid")]
)
def test_without_the_cluster_s_token_nothing_is_sent(place: SimpleNamespace, token: dict[str, str], said: str) -> None:
    refused = run(place, "-m", "ovos_ray", "submit", "--", "verify", str(place.root / "shards"), **token)
    assert refused.returncode == 1
    assert said in refused.stdout
    assert "--token-file" in refused.stdout
