"""The spool keeps what was logged through torn writes, dead processes and full disks."""

from __future__ import annotations

import json
import multiprocessing
import resource
from pathlib import Path

import pytest

from ovos_ray.errors import TrackingError
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import Spool, find_spools


def identity(key: str = "run", parent: str | None = None) -> RunIdentity:
    return RunIdentity("sqlite:////nowhere.db", "study", key, "name", parent)


def test_records_come_back_in_order_and_from_any_confirmed_position(tmp_path: Path) -> None:
    spool = Spool(tmp_path, identity())
    for step in range(5):
        spool.append("metrics", {"step": step, "values": {"a": step / 3}})
    records = list(Spool.load(spool.folder).records())
    assert [r.data["step"] for r in records] == [0, 1, 2, 3, 4]
    assert [r.data["values"]["a"] for r in records] == [step / 3 for step in range(5)]
    assert [r.data["step"] for r in spool.records(records[2].end)] == [3, 4]


def test_line_torn_by_a_kill_is_passed_over_and_later_records_survive(tmp_path: Path) -> None:
    spool = Spool(tmp_path, identity())
    spool.append("tags", {"a": "1"})
    spool.close()
    with open(spool.records_path, "ab") as file:
        file.write(b'{"kind": "tags", "time_ms": 1, "da')
    assert [r.data for r in spool.records()] == [{"a": "1"}]

    again = Spool.load(spool.folder)
    again.append("tags", {"b": "2"})
    assert [r.data for r in again.records()] == [{"a": "1"}, {"b": "2"}]


def test_unfinished_line_is_not_read_before_its_end_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, identity())
    spool.append("tags", {"a": "1"})
    whole = json.dumps({"kind": "tags", "time_ms": 1, "data": {"b": "2"}}).encode()
    with open(spool.records_path, "ab") as file:
        file.write(whole[:10])
        file.flush()
        first = list(spool.records())
        assert len(first) == 1
        file.write(whole[10:] + b"\n")
        file.flush()
        assert [r.data for r in spool.records(first[0].end)] == [{"b": "2"}]


def test_files_are_copied_so_that_the_source_may_change(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", identity())
    source = tmp_path / "a.txt"
    source.write_text("first")
    place = spool.keep(source, "deep/b.txt")
    source.write_text("second")
    assert spool.kept(place).read_text() == "first"
    assert spool.kept(place).name == "b.txt"
    spool.release(place)
    assert not spool.kept(place).exists()


def _holds_lock(folder: Path, result: multiprocessing.Queue[bool]) -> None:
    with Spool.load(folder).locked() as mine:
        result.put(mine)


def test_only_one_process_sends(tmp_path: Path) -> None:
    spool = Spool(tmp_path, identity())
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[bool] = context.Queue()
    for held, expected in ((True, False), (False, True)):
        process = context.Process(target=_holds_lock, args=(spool.folder, queue))
        if held:
            with spool.locked() as mine:
                assert mine
                process.start()
                process.join()
        else:
            process.start()
            process.join()
        assert queue.get(timeout=5) is expected


def test_different_stores_and_experiments_do_not_share_a_spool(tmp_path: Path) -> None:
    one = Spool(tmp_path, identity())
    other = Spool(tmp_path, RunIdentity("http://elsewhere", "study", "run", "name"))
    assert one.folder != other.folder
    assert Spool(tmp_path, identity()).folder == one.folder


def test_sweeps_are_found_before_their_trials(tmp_path: Path) -> None:
    Spool(tmp_path, identity("a-trial", parent="z-sweep"))
    Spool(tmp_path, identity("z-sweep"))
    assert [s.identity.run_key for s in find_spools(tmp_path)[0]] == ["z-sweep", "a-trial"]


def test_folder_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"file.*cannot be written"):
        Spool(tmp_path / "file", identity())


def test_full_disk_neither_stops_the_caller_nor_damages_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink(None)
    sink._spool = Spool(tmp_path, identity())
    sink.log_metrics({"a": 1.0}, step=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sink._spool.records_path.stat().st_size + 20, before[1]))
    try:
        sink.log_metrics({"a": 2.0}, step=2)
        sink.log_metrics({"a": 2.0}, step=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.log_metrics({"a": 4.0}, step=4)
    assert [r.data["step"] for r in sink._spool.records()] == [1, 2, 3, 4], "what found no room has waited in memory"
    assert caplog.text.count("cannot be written") == 1


def test_no_tracking_uri_means_no_files(tmp_path: Path) -> None:
    sink = Sink.open("", "study", "run", name="x", spool=tmp_path)
    sink.log_metrics({"a": 1.0}, step=1)
    sink.log_artifact(b"x", "a.txt")
    assert sink.finish()
    assert list(tmp_path.iterdir()) == []
