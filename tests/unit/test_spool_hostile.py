"""A spool of a stranger, or a damaged one: nothing outside of it is read, sent, written or removed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs
from tracked import history, the_run
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.errors import OvosError, TrackingError
from ovos_ray.storage import Storage
from ovos_ray.track import leftovers
from ovos_ray.track.bucket import sync_bucket
from ovos_ray.track.leftovers import backlog, sync
from ovos_ray.track.records import Record, RunIdentity
from ovos_ray.track.sender import Sender
from ovos_ray.track.servers import is_known, remember
from ovos_ray.track.sink import Sink
from ovos_ray.track.spool import Spool, find_spools

pytestmark = pytest.mark.usefixtures("impatient")


def spool_of(root: Path, server: str, key: str = "one", experiment: str = "hostile") -> Spool:
    return Spool(root / "tracking", RunIdentity(server, experiment, key, key))


def add(spool: Spool, *records: Any) -> None:
    with open(spool.records_path, "a") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def record(kind: str, data: Any) -> dict[str, Any]:
    return {"kind": kind, "time_ms": 1, "data": data}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of the user's, in a folder of its own."""
    path = tmp_path / "documents" / "id_rsa"
    path.parent.mkdir()
    path.write_text("private")
    return path


def artifacts(client: Any, experiment: str, key: str) -> list[str]:
    run = the_run(client, experiment, key)
    return [file.path for file in client.list_artifacts(run.info.run_id)]


@pytest.mark.parametrize("kind", ["artifact", "model"])
def test_a_crafted_place_sends_and_removes_nothing_outside(
    kind: str, store: str, client: Any, tmp_path: Path, precious: Path
) -> None:
    spool = spool_of(tmp_path / "runs", store, f"places-{kind}")
    more = {"settings": {"network": "stcn-tiny"}} if kind == "model" else {}
    places = [
        os.path.relpath(precious, spool.folder / "files"),
        str(precious),
        "../../../documents/id_rsa",
        "0-0/../../../../documents/id_rsa",
        "0-0/..",
        "..",
        "0-0",
        "/",
        "",
        7,
        None,
    ]
    add(spool, *[record(kind, {"name": "x", "place": place, **more}) for place in places])
    add(spool, record("tags", {"arrived": "yes"}))
    assert sync(tmp_path / "runs", tracking_uri=store) == []
    assert precious.read_text() == "private"
    assert artifacts(client, "hostile", f"places-{kind}") == []
    assert the_run(client, "hostile", f"places-{kind}").data.tags["arrived"] == "yes", "what follows is not held up"


@pytest.mark.parametrize("link", ["file", "folder", "inside", "place"])
def test_a_link_in_a_spool_is_not_followed(link: str, store: str, client: Any, tmp_path: Path, precious: Path) -> None:
    key = f"link-{link}"
    spool = spool_of(tmp_path / "runs", store, key)
    place = spool.folder / "files" / "0-0"
    if link == "place":
        place.symlink_to(precious.parent)
    else:
        place.mkdir()
        if link == "file":
            (place / "id_rsa").symlink_to(precious)
        elif link == "folder":
            (place / "id_rsa").symlink_to(precious.parent)
        else:
            (place / "id_rsa").mkdir()
            (place / "id_rsa" / "key").symlink_to(precious)
    add(spool, record("artifact", {"name": "x/id_rsa", "place": "0-0/id_rsa"}), record("tags", {"a": "b"}))
    assert sync(tmp_path / "runs", tracking_uri=store) == []
    assert precious.read_text() == "private"
    assert artifacts(client, "hostile", key) == []
    assert the_run(client, "hostile", key).data.tags["a"] == "b"


@pytest.mark.parametrize("name", ["lock", "records.jsonl", "rejected.jsonl", "sent.json", "run.json"])
def test_a_link_in_place_of_a_spool_s_own_file_changes_nothing(
    name: str, store: str, tmp_path: Path, precious: Path
) -> None:
    spool = spool_of(tmp_path / "runs", store, f"own-{name}")
    add(spool, record("metrics", {"step": 1, "values": {"not&allowed": 1.0}}), record("tags", {"a": "b"}))
    (spool.folder / name).unlink(missing_ok=True)
    (spool.folder / name).symlink_to(precious)
    sync(tmp_path / "runs", tracking_uri=store)
    assert precious.read_text() == "private"


def test_a_linked_folder_of_files_is_no_spool(store: str, tmp_path: Path, precious: Path) -> None:
    spool = spool_of(tmp_path / "runs", store, "files")
    (spool.folder / "files").rmdir()
    (spool.folder / "files").symlink_to(precious.parent)
    add(spool, record("artifact", {"name": "x", "place": "0-0/id_rsa"}))
    (entry,) = sync(tmp_path / "runs", tracking_uri=store)
    assert "by a link" in str(entry)
    assert precious.read_text() == "private"


def test_a_server_that_no_run_of_the_user_has_used_is_not_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow adds the user's credentials to what it sends."""
    add(spool_of(tmp_path / "runs", "http://evil.example:1"), record("tags", {"a": "b"}))
    connected: list[str] = []
    monkeypatch.setattr("ovos_ray.track.sender.connect", lambda uri: connected.append(uri) or 1 / 0)
    (entry,) = sync(tmp_path / "runs")
    assert "--tracking-uri http://evil.example:1" in entry.reason
    asked: list[str] = []
    sync(tmp_path / "runs", confirm=lambda server, spool: asked.append(server) or False)  # type: ignore[func-returns-value]
    assert (asked, connected) == (["http://evil.example:1"], [])
    printed = CliRunner().invoke(app, ["sync", str(tmp_path / "runs")])
    assert printed.exit_code == 1
    assert "evil.example" in printed.output
    assert connected == []
    sync(tmp_path / "runs", tracking_uri="http://evil.example:1")
    assert connected == ["http://evil.example:1"]


def test_agreeing_once_is_enough_and_so_is_having_run_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    connected: list[str] = []
    monkeypatch.setattr("ovos_ray.track.sender.connect", lambda uri: connected.append(uri) or 1 / 0)
    add(spool_of(tmp_path / "runs", "http://mine:5000"), record("tags", {"a": "b"}))
    sync(tmp_path / "runs", confirm=lambda *_: True)
    sync(tmp_path / "runs")
    assert connected == ["http://mine:5000"] * 2
    sink = Sink.open("http://other:5000/path", "study", "x", name="x", spool=tmp_path / "two" / "tracking")
    sink.finish(timeout_s=0)
    connected.clear()
    sync(tmp_path / "two")
    assert set(connected) == {"http://other:5000/path"}
    assert oct((tmp_path / "state" / "ovos_ray").stat().st_mode)[-3:] == "700"


def test_a_user_without_a_home_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    remember("http://mine:5000")
    assert not is_known("http://mine:5000")


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'{"tracking_uri": 3}', b"\xff", b"[" * 50_000, b'{"a": "b"}', bytes(100_000)],
)
def test_a_damaged_run_file_holds_up_nobody_else(content: bytes, store: str, client: Any, tmp_path: Path) -> None:
    key = f"beside-{abs(hash(content))}"
    good, bad = spool_of(tmp_path / "runs", store, key), spool_of(tmp_path / "runs", store, "bad")
    add(good, record("tags", {"a": "b"}))
    (bad.folder / "run.json").write_bytes(content)
    assert len(backlog(tmp_path / "runs")) == 2
    (entry,) = sync(tmp_path / "runs", tracking_uri=store)
    assert str(bad.folder) in str(entry)
    assert the_run(client, "hostile", key).data.tags["a"] == "b"
    Spool(tmp_path / "runs" / "tracking", bad.identity)
    assert RunIdentity.read(bad.folder / "run.json") == bad.identity, "the run itself mends it"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tracking_uri", "http://user:s3cret@host"),
        ("experiment", ".."),
        ("experiment", "a\x1b[31m"),
        ("run_key", ""),
        ("name", 3),
        ("name", "a\nb"),
        ("parent_key", ["x"]),
        ("tracking_uri", "http://[bad"),
    ],
)
def test_a_run_that_no_sink_would_name_is_refused(field: str, value: Any, store: str, tmp_path: Path) -> None:
    spool = spool_of(tmp_path, store)
    given_ = {**dataclasses.asdict(spool.identity), field: value}
    (spool.folder / "run.json").write_text(json.dumps(given_))
    spools, damaged = find_spools(tmp_path)
    assert (spools, len(damaged)) == ([], 1)
    assert "s3cret" not in str(damaged[0])


@pytest.mark.parametrize("content", ["null", "[]", "{}", "", '{"offset": -5}', "\xff"])
def test_a_damaged_note_of_what_was_sent_means_asking_the_server(
    content: str, store: str, client: Any, tmp_path: Path
) -> None:
    key = f"note-{content}".replace('"', "")
    spool = spool_of(tmp_path / "runs", store, key)
    add(spool, *[record("metrics", {"step": step, "values": {"a": step}}) for step in range(3)])
    assert sync(tmp_path / "runs", tracking_uri=store) == []
    (spool.folder / "sent.json").write_text(content)
    assert sync(tmp_path / "runs", tracking_uri=store) == []
    assert history(client, the_run(client, "hostile", key), "a") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"there is no folder .*nope"):
        sync(tmp_path / "nope")
    printed = CliRunner().invoke(app, ["sync", str(tmp_path / "nope")])
    assert printed.exit_code != 0
    assert "nothing is left" not in printed.output


def test_a_bucket_s_key_that_leads_elsewhere_is_refused(tmp_path: Path, precious: Path) -> None:
    storage = Storage(str(tmp_path))

    class Bucket:
        def get_file_info(self, _: Any) -> list[Any]:
            return [fs.FileInfo("runs/a/tracking/b/../../../documents/id_rsa", fs.FileType.File)]

    storage.fs, storage.local = Bucket(), False  # type: ignore[assignment]
    with pytest.raises(TrackingError, match="leads elsewhere"):
        sync_bucket(storage)
    assert precious.read_text() == "private"


# Whatever JSON can say, and what is nearly right.
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["..", "/", "0-0/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_DATA = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("step", "values", "name", "place", "settings", "status", "source", "digest"), _JSON),
)
_LINE = st.one_of(
    st.binary(max_size=60),
    _JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda kind, time_ms, data: json.dumps({"kind": kind, "time_ms": time_ms, "data": data}).encode(),
        st.sampled_from(["metrics", "params", "tags", "artifact", "model", "dataset", "status", "connect"]) | _JSON,
        st.integers() | _JSON,
        _DATA | _JSON,
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(_LINE, max_size=6), note=st.binary(max_size=40) | _JSON.map(lambda v: json.dumps(v).encode()))
def test_whatever_a_spool_holds_is_sent_or_passed_over(tmp_path: Path, lines: list[bytes], note: bytes) -> None:
    shutil.rmtree(tmp_path / "tracking", ignore_errors=True)
    spool = spool_of(tmp_path, "http://nowhere:1")
    spool.records_path.write_bytes(b"".join(line + b"\n" for line in [*lines, json.dumps(record("tags", {})).encode()]))
    (spool.folder / "sent.json").write_bytes(note)
    found = list(Spool.load(spool.folder).records())
    assert found, "the last record is well formed"
    for one in found:
        assert Record.parse(json.dumps({"kind": one.kind, "time_ms": one.time_ms, "data": one.data}).encode())
        if "place" in one.data and one.kind in ("artifact", "model"):
            assert spool.kept(one.data["place"]).resolve().is_relative_to(spool.folder.resolve() / "files")
    assert isinstance(Sender(spool).complete, bool)
    assert leftovers.backlog(tmp_path)[0].num_records >= 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | _JSON.map(lambda v: json.dumps(v).encode()))
def test_whatever_a_run_file_holds_is_a_run_or_a_named_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with contextlib.suppress(OvosError):
        RunIdentity.read(tmp_path / "run.json")
