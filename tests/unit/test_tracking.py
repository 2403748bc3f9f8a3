"""What MLflow holds of a run: everything, once, also after its process was killed."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from tracked import history, loss, the_run

from ovos_ray.config import ExperimentConfig, TrainConfig
from ovos_ray.config.digest import digest
from ovos_ray.track.leftovers import sync
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.sender import Sender
from ovos_ray.track.servers import resolve_tracking_uri
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import Spool

pytestmark = pytest.mark.usefixtures("impatient")


def test_run_holds_metrics_on_the_step_axis_parameters_tags_and_config(store: str, client: Any, tmp_path: Path) -> None:
    import mlflow.data

    config = ExperimentConfig(seed=3, train=TrainConfig(steps=77), note="n" * 1200)
    with Sink.open(store, "basic", "one", name="2-step seed 3", tags={"ovos.kind": "trial"}, spool=tmp_path) as sink:
        sink.log_config(config)
        for step in range(0, 60, 20):
            sink.log_metrics({"train/loss": loss(step), "train/iou": 0.5}, step)
        sink.log_metrics({"val/jf": math.nan}, 40)
        sink.log_artifact(b"sequence,object\n", "scores/scores.csv")
        sink.log_dataset("davis", "d" * 64, source="/data/shards", profile={"labels": 12})
    run = the_run(client, "basic", "one")
    assert history(client, run, "train/loss") == [(0, loss(0)), (20, loss(20)), (40, loss(40))]
    assert math.isnan(client.get_metric_history(run.info.run_id, "val/jf")[0].value)
    assert (run.info.run_name, run.info.status) == ("2-step seed 3", "FINISHED")
    assert run.data.tags["ovos.digest"] == digest(config)
    assert (run.data.tags["ovos.seed"], run.data.tags["ovos.kind"]) == ("3", "trial")
    assert (run.data.params["train.steps"], run.data.params["method.backward"]) == ("77", "2-step")
    assert [len(run.data.params[key]) for key in ("note", "note.1", "note.2")] == [500, 500, 200]
    stored = client.download_artifacts(run.info.run_id, "config.json", str(tmp_path))
    assert json.loads(Path(stored).read_text())["train"]["steps"] == 77
    assert [f.path for f in client.list_artifacts(run.info.run_id, "scores")] == ["scores/scores.csv"]
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("davis", "d" * 36)
    assert mlflow.data.get_source(dataset).uri == "/data/shards"


def test_artifacts_lie_beside_the_database_not_in_the_current_folder(
    store: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Sink.open(store, "place", "one", name="x", spool=tmp_path / "spool") as sink:
        sink.log_artifact(b"x", "a.txt")
    folder = Path(store.removeprefix("sqlite:///")).parent
    assert client.get_experiment_by_name("place").artifact_location == (folder / "mlruns" / "place").as_uri()
    assert [p.name for p in tmp_path.iterdir()] == ["spool"]


def test_relative_sqlite_paths_are_fixed_where_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_tracking_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_tracking_uri(f"sqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"
    assert resolve_tracking_uri("http://host:5000") == "http://host:5000"


def test_trial_nests_under_the_sweep_even_when_the_sweep_comes_later(store: str, client: Any, tmp_path: Path) -> None:
    child = Sink.open(store, "nested", "child", name="c", parent_key="parent", spool=tmp_path)
    child.log_metrics({"a": 1.0}, 1)
    assert not child.finish(timeout_s=2)
    assert [u.run_key for u in sync(tmp_path)] == ["child"]
    Sink.open(store, "nested", "parent", name="p", spool=tmp_path).finish()
    assert sync(tmp_path) == []
    parent, run = the_run(client, "nested", "parent"), the_run(client, "nested", "child")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_resumed_run_has_no_point_twice_and_keeps_its_history(store: str, client: Any, tmp_path: Path) -> None:
    for number, steps in enumerate((range(60), range(40, 100))):
        # A new spool each time: the second process may run on another machine.
        sink = Sink.open(store, "resume", "one", name="x", spool=tmp_path / str(number))
        for step in steps:
            sink.log_metrics({"train/loss": loss(step)}, step)
        assert sink.finish()
    run = the_run(client, "resume", "one")
    assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(100)]
    assert "ovos.points_that_differ_after_resume" not in run.data.tags


def test_process_that_still_has_the_spool_does_not_send_again_what_another_has_sent(
    store: str, client: Any, tmp_path: Path
) -> None:
    """As when a study ends a trial whose process is not gone yet: sent again, `RUNNING` would come after the end."""
    spool = Spool(tmp_path, RunIdentity(store, "two", "one", "x"))
    trial, study = Sender(spool), Sender(Spool.load(spool.folder))
    spool.append("status", {"status": "RUNNING"})
    trial.drain()
    spool.append("metrics", {"step": 1, "values": {"a": 1.0}})
    spool.append("tags", {"by": "the study"})
    spool.append("status", {"status": "FINISHED"})
    study.drain()
    client.set_tag(study.run_id, "by", "nobody since")
    spool.append("metrics", {"step": 2, "values": {"a": 2.0}})
    trial.drain()
    run = the_run(client, "two", "one")
    assert history(client, run, "a") == [(1, 1.0), (2, 2.0)]
    assert (run.info.status, run.data.tags["by"]) == ("FINISHED", "nobody since")
    assert trial.complete
    assert study.complete


def test_load_of_the_machine_is_read_beside_the_metrics(store: str, client: Any, tmp_path: Path) -> None:
    import mmap

    import numpy as np
    import torch

    from ovos_ray.track.system import SystemMeter

    meter = SystemMeter(torch.device("cpu"))
    before = meter.read()
    # Mapped anew: memory that was freed before and kept would not make the process grow.
    ballast = np.frombuffer(mmap.mmap(-1, 64 * 2**20), np.uint8)
    deadline = time.process_time() + 0.3
    while time.process_time() < deadline:
        ballast += 1
    after = meter.read()
    grown = after["system/process_memory_megabytes"] - before["system/process_memory_megabytes"]
    assert 50 < grown < 200
    assert after["system/process_cpu_percentage"] > 5, "of one core, since the call before"
    assert 0 <= after["system/cpu_utilization_percentage"] <= 100
    with Sink.open(store, "load", "one", name="x", spool=tmp_path) as sink:
        sink.log_metrics({"train/loss": 1.0, **after}, 20)
    run = the_run(client, "load", "one")
    assert history(client, run, "system/process_memory_megabytes") == [(20, after["system/process_memory_megabytes"])]


def test_points_that_differ_after_a_resume_keep_the_first_value_and_are_counted(
    store: str, client: Any, tmp_path: Path
) -> None:
    for offset in (0.0, 1.0):
        with Sink.open(store, "differ", "one", name="x", spool=tmp_path) as sink:
            for step in range(3):
                sink.log_metrics({"a": step + offset, "system/cpu": offset, "train/clips_per_s": offset}, step)
    run = the_run(client, "differ", "one")
    assert history(client, run, "a") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert run.data.tags["ovos.points_that_differ_after_resume"] == "3", "the machine's load is no result"


def test_parameter_changed_by_a_resume_is_told_in_a_tag(store: str, client: Any, tmp_path: Path) -> None:
    for steps in (10, 20):
        Sink.open(store, "changed", "one", name="x", params={"train.steps": steps}, spool=tmp_path).finish()
    run = the_run(client, "changed", "one")
    assert run.data.params["train.steps"] == "10"
    assert run.data.tags["ovos.changed.train.steps"] == "20"


def test_record_the_server_refuses_is_kept_aside_and_the_rest_arrives(store: str, client: Any, tmp_path: Path) -> None:
    sink = Sink.open(store, "refused", "one", name="x", spool=tmp_path)
    sink.log_metrics({"good": 1.0}, 1)
    sink.log_metrics({"not&allowed": 1.0}, 1)
    sink.log_metrics({"good": 2.0}, 2)
    assert sink.finish()
    assert history(client, the_run(client, "refused", "one"), "good") == [(1, 1.0), (2, 2.0)]
    (rejected,) = tmp_path.glob("*/rejected.jsonl")
    assert "not&allowed" in rejected.read_text()


def test_failed_and_interrupted_runs_end_as_such(store: str, client: Any, tmp_path: Path) -> None:
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), Sink.open(store, "ended", status, name="x", spool=tmp_path):
            raise error
        assert the_run(client, "ended", status).info.status == status


def test_training_process_killed_mid_run_continues_its_own_run(store: str, client: Any, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys, time
        from pathlib import Path
        from ovos_ray.track.sink import Sink
        start, end, kill = map(int, sys.argv[1:])
        assert "mlflow" not in sys.modules
        sink = Sink.open({store!r}, "killed", "one", name="x", spool=Path({str(tmp_path)!r}))
        for step in range(start, end):
            sink.log_metrics({{"train/loss": 1 / (step + 1)}}, step)
        if kill:
            sink.flush(kill / 10)
            for step in range(end, end + 20):
                sink.log_metrics({{"train/loss": 1 / (step + 1)}}, step)
            os.kill(os.getpid(), signal.SIGKILL)
        assert sink.finish(timeout_s=60)
    """)
    kills = []
    # Killed before the server knew anything, killed after it knew the first part, then finished.
    for arguments in (("0", "30", "1"), ("30", "60", "600"), ("50", "100", "0")):
        kills.append(subprocess.run([sys.executable, "-c", script, *arguments], timeout=120, check=False).returncode)
    assert kills == [-signal.SIGKILL, -signal.SIGKILL, 0]
    run = the_run(client, "killed", "one")
    assert history(client, run, "train/loss") == [(step, loss(step)) for step in range(100)]
    assert run.info.status == "FINISHED"
