"""How a run of no study ends that cannot go on: FAILED in MLflow with all it logged, and its reason in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import config_of
from tracked import history, the_run

from ovos_ray.config import ExperimentConfig, PretrainConfig, override
from ovos_ray.errors import DataError, HeldError, OvosError
from ovos_ray.run import failure
from ovos_ray.run.prepare import make_run, request_for
from ovos_ray.run.pretraining import pin, pretraining_folder
from ovos_ray.run.request import RunRequest
from ovos_ray.run.run_log import open_sink
from ovos_ray.storage import Storage
from ovos_ray.study.status import RunStatus, read_study
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.sender import Sender
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import Spool
from ovos_ray.train.run_folder import RunFolder


def request_of(config: ExperimentConfig) -> RunRequest:
    return request_for(config, "failing", tags={})


def status_of(config: ExperimentConfig) -> RunStatus:
    return read_study(RunFolder.of(config).storage.folder).runs[0]


def logs_then_raises(error: BaseException) -> Any:
    """What executes a run that logs one step and then cannot go on, within less time than a sink takes to send."""

    def execute(request: RunRequest) -> None:
        sink = open_sink(request)
        sink.log_metrics({"train/loss": 0.5}, 2)
        sink.close()
        raise error

    return execute


def test_an_error_within_seconds_ends_the_run_as_failed_with_its_reason(
    shards: Path, tmp_path: Path, store: str, client: Any
) -> None:
    config = config_of(shards, tmp_path, tracking_uri=store)
    with pytest.raises(DataError):
        make_run(request_of(config), logs_then_raises(DataError("shard 3 is damaged", "pack it again")))
    assert (status_of(config).state, status_of(config).reason) == ("failed", "DataError: shard 3 is damaged")
    run = the_run(client, "failing", request_of(config).run_key)
    assert run.info.status == "FAILED"
    assert run.data.tags["ovos.error"].startswith("DataError: shard 3 is damaged")
    assert history(client, run, "train/loss") == [(2, 0.5)]

    def mended(request: RunRequest) -> None:
        assert status_of(config).state == "running", "an earlier failure is forgotten"
        RunFolder.of(request.config).finish({"scores": {}, "steps": 8})

    make_run(request_of(config), mended)
    assert (status_of(config).state, status_of(config).reason) == ("finished", "")


def test_a_defect_is_a_failure_and_an_interruption_is_none(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path)
    for error, state in ((KeyboardInterrupt(), "interrupted"), (ValueError("no"), "failed"), (SystemExit(1), None)):
        with pytest.raises(type(error)):
            make_run(request_of(config), logs_then_raises(error))
        assert status_of(config).state == (state or "interrupted")
    with pytest.raises(HeldError):  # whoever holds it goes on
        make_run(request_of(config), logs_then_raises(HeldError("another process makes it")))
    assert status_of(config).state == "interrupted"


def test_a_disk_that_takes_no_reason_hides_no_error(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failure, "note_failure", full)
    with pytest.raises(DataError, match="shard 3"):
        make_run(request_of(config_of(shards, tmp_path)), logs_then_raises(DataError("shard 3 is damaged")))


def test_a_run_whose_pretraining_fails_has_failed(shards: Path, tmp_path: Path) -> None:
    stage = {
        "pretrain.overrides": [
            f"data.shards={shards}",
            "tracking_uri=",
            "validation.root=none",
            "evaluation.root=none",
        ],
        "tracking_uri": "",
    }
    config = config_of(shards, tmp_path / "runs", pretrain=PretrainConfig(recipe="trainables.synthetic"))
    config = pin(override(config, stage))
    with pytest.raises(OvosError):
        make_run(request_of(config), logs_then_raises(DataError("no images")))
    assert (status_of(config).state, status_of(config).reason) == ("failed", "DataError: no images")
    there = read_study(pretraining_folder(config).storage.folder).runs[0]
    assert (there.state, there.reason) == ("failed", "DataError: no images")


def test_the_trial_of_a_study_leaves_it_to_the_study(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path)
    with pytest.raises(DataError):
        make_run(RunRequest(config, "study", "trial"), logs_then_raises(DataError("lost")))
    assert not Storage(str(tmp_path / "run")).exists("failure.json"), "it may be started again"


def test_who_lets_go_of_a_run_gives_the_server_what_was_logged(store: str, client: Any, tmp_path: Path) -> None:
    sink = Sink.open(store, "left", "one", name="x", spool=tmp_path)
    sink.log_metrics({"train/loss": 0.25}, 7)
    sink.close()
    run = the_run(client, "left", "one")
    assert (run.info.status, history(client, run, "train/loss")) == ("RUNNING", [(7, 0.25)])


def test_who_goes_on_with_a_spool_sends_nothing_that_its_last_owner_has_sent(
    store: str, client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, RunIdentity(store, "handed on", "one", "x"))
    place = spool.keep(b"content", "config.json")
    spool.append("artifact", {"name": "config.json", "place": place})
    spool.append("metrics", {"step": 1, "values": {"train/loss": 0.5}})
    late, busy = Sender(spool), Sender(spool)  # made while the one before was still sending
    busy.drain()
    spool.append("metrics", {"step": 2, "values": {"train/loss": 0.25}})
    late.drain()
    assert late.complete
    assert not caplog.records, "such as: was sent before, its copy is gone"
    assert history(client, the_run(client, "handed on", "one"), "train/loss") == [(1, 0.5), (2, 0.25)]


def test_what_ray_has_wrapped_is_told_by_its_own_name() -> None:
    from ray.exceptions import RayTaskError

    from ovos_ray.on_ray.causes import lasting_cause

    inner = DataError("shard 3 is damaged", "pack it again")
    wrapped = RayTaskError("train", "a long traceback", inner).as_instanceof_cause()
    assert isinstance(wrapped, DataError), "by Ray's making"
    assert lasting_cause(wrapped) is inner
