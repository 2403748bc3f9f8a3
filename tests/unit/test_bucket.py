"""Shards read from a bucket, runs kept in one: against a real S3 server process on loopback, through pyarrow."""

from __future__ import annotations

import errno
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_s3 import Server, serving, upload
from pyarrow import fs
from scored_masks import make_davis_masks
from tiny_study import make_dataset
from tracked import history, the_run

from ovos_ray.cli.export import export
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.recipes import make
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.errors import DataError, StorageError, WeightsError
from ovos_ray.evaluate.infer.mask_archive import send_masks, unpacked
from ovos_ray.evaluate.score.scoring import evaluate_folders
from ovos_ray.networks.remote_weights import weights_file
from ovos_ray.packing.pack import pack
from ovos_ray.run.here import fit_here
from ovos_ray.run.request import RunRequest
from ovos_ray.run.score import finished_runs, score_run
from ovos_ray.storage import Storage
from ovos_ray.track import sink as sink_module
from ovos_ray.track.bucket import finish_and_keep, sync_bucket
from ovos_ray.track.sink import Sink
from ovos_ray.train.checkpoint import CheckpointStore
from ovos_ray.train.load_network import load_network
from ovos_ray.train.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def bucket(server: Server) -> Iterator[str]:
    """URI of a bucket that does not fail."""
    yield server.uri
    server.fail(0)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("local"))


def test_files_are_whole_or_absent(bucket: str) -> None:
    storage = Storage(bucket) / "files"
    assert not storage.local
    assert storage.folders() == []
    assert not storage.exists("a", "b.txt")
    with pytest.raises(FileNotFoundError):
        storage.read("a", "b.txt")
    storage.write(b"one", "a", "b.txt")
    storage.write(b"two", "a", "b.txt")
    assert storage.read("a", "b.txt") == b"two"
    assert storage.exists("a", "b.txt")
    assert storage.folders() == ["a"]
    storage.remove_folder("a")
    assert not storage.exists("a", "b.txt")


def test_checkpoints_are_kept_pruned_and_passed_over_when_damaged(bucket: str) -> None:
    store = CheckpointStore(Storage(bucket) / "run" / "checkpoints", keep=2)
    assert store.latest() is None
    large = torch.arange(4 * 2**20, dtype=torch.float32)  # above the size from which uploads go in parts
    for step in (1, 2, 3):
        store.save(step, {"step": step, "weights": large + step})
    assert store.storage.folders() == ["step-00000002", "step-00000003"]
    assert torch.equal(store.load(3)["weights"], large + 3)
    store.storage.write(b"half", "step-00000003", "state.pt")
    assert store.latest() == 2


def test_shards_in_a_bucket_hold_what_they_hold_on_the_disk(bucket: str, local: Path) -> None:
    upload(local / "shards", f"{bucket}/shards")
    index = ShardIndex.load(f"{bucket}/shards")
    assert index == ShardIndex.load(local / "shards")
    there, here = ShardReader(f"{bucket}/shards"), ShardReader(local / "shards")
    for video in index.videos:
        assert there.read(video.name, [4, 0]) == here.read(video.name, [4, 0])


def config_of(bucket: str, local: Path, name: str, **changes: object) -> ExperimentConfig:
    settings: dict[str, object] = {
        "name": name,
        "network.name": "stcn-tiny",
        "data.shards": (f"{bucket}/run/shards",),
        "data.crop_size": 48,
        "data.clip_length": 4,
        "data.batch_size": 2,
        "train.steps": 4,
        "train.checkpoint_every": 2,
        "storage": f"{bucket}/run/runs",
        "tracking_uri": "",
        **changes,
    }
    return override(make("trainables.one_shot", ExperimentConfig), settings)


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_shards_are_kept_on_the_disk_of_a_node_and_the_bucket_has_the_last_word(
    server: Server,
    bucket: str,
    local: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upload(local / "shards", f"{bucket}/kept/shards")
    expected = ShardReader(local / "shards").read("train-001", [4, 0])

    def reader() -> ShardReader:
        return ShardReader(f"{bucket}/kept/shards", str(tmp_path / "cache"))

    first, second = reader(), reader()
    assert first.read("train-001", [4, 0]) == expected
    (kept,) = (tmp_path / "cache").rglob("*.parquet")
    assert kept.read_bytes() == (local / "shards" / kept.name).read_bytes()
    before = server.fail(0)
    assert second.read("train-001", [4, 0]) == expected
    assert server.fail(0) == before, "nothing was asked of the bucket"

    content = bytearray(kept.read_bytes())
    content[content.index(expected[0].jpeg) + 50] ^= 1
    kept.write_bytes(content)
    assert reader().read("train-001", [4, 0]) == expected
    assert not kept.exists()
    monkeypatch.setattr("ovos_ray.data.shards.node_cache._SPARE_BYTES", 2**60)
    assert reader().read("train-001", [4, 0]) == expected, "a full disk is none"
    assert not kept.exists()
    monkeypatch.setattr("ovos_ray.data.shards.node_cache._SPARE_BYTES", 0)
    monkeypatch.setattr("ovos_ray.data.shards.node_cache.atomic_path", full)
    caplog.clear()
    assert reader().read("train-001", [4, 0]) == expected, "nor is one that fills up meanwhile"
    assert caplog.messages == [f"{kept.parent}: No space left on device; its shards are read from the bucket"]


def test_a_run_reads_and_writes_buckets_and_is_resumed_from_them(
    bucket: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(local / "shards", f"{bucket}/run/shards")
    monkeypatch.setenv("HOME", str(tmp_path))  # where unsent records wait
    said: list[str] = []
    config = config_of(bucket, local, "one", **{"evaluation.root": str(local / "dataset")})
    request = RunRequest(config, "study", "one", watcher=lambda record: said.append(str(record.get("event"))))
    fit_here(request)
    run = Storage(f"{bucket}/run/runs/one")
    first = json.loads(run.read("result.json"))
    assert 0 <= first["scores"]["jf"] <= 100
    with zipfile.ZipFile(io.BytesIO(run.read("predictions", "val-000.zip"))) as masks:
        names = [path.stem for path in (local / "dataset" / "JPEGImages" / "480p" / "val-000").iterdir()]
        assert sorted(masks.namelist()) == sorted(f"val-000/{name}.png" for name in names)
    weights = run.read("network.safetensors")

    run.remove("result.json")
    run.remove_folder("checkpoints/step-00000004")
    fit_here(request)
    assert any(event.startswith("resuming at step 2") for event in said), said
    assert run.read("network.safetensors") == weights
    assert not run.exists("lease"), "nobody trains it any more"
    assert json.loads(run.read("result.json"))["scores"] == first["scores"]


def test_a_bucket_that_fails_now_and_then_changes_no_weight(
    server: Server, bucket: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(local / "shards", f"{bucket}/run/shards")
    monkeypatch.setenv("HOME", str(tmp_path))

    def weights(name: str, **changes: object) -> bytes:
        fit_here(RunRequest(config_of(bucket, local, name, **changes), "study", name))
        return Storage(f"{bucket}/run/runs/{name}").read("network.safetensors")

    undisturbed = weights("calm")
    server.fail(0.05)
    disturbed = weights("disturbed")
    counts = server.fail(0)
    assert sum(count for kind, count in counts.items() if not kind.endswith("fine")) >= 3, counts
    assert disturbed == undisturbed
    assert weights("other", seed=1) != undisturbed, "the control"


def test_a_run_is_scored_on_shards_of_a_bucket_and_starts_from_weights_there(
    bucket: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No disk but this machine's own: what is scored, what it starts from and what it leaves lie in a bucket."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    upload(local / "shards", f"{bucket}/run/shards")
    pack(open_dataset(local / "dataset"), tmp_path / "val", labels="all", split="val")
    upload(tmp_path / "val", f"{bucket}/run/val")
    scored = {"evaluation.root": str(local / "dataset")}
    fit_here(RunRequest(config_of(bucket, local, "first", **scored), "study", "first"))
    init = f"{bucket}/run/runs/first/network.safetensors"
    results = {}
    for name, source in (("folder", scored), ("bucket", {"evaluation.shards": f"{bucket}/run/val"})):
        fit_here(RunRequest(config_of(bucket, local, name, **{"network.init": init, **source}), "study", name))
        results[name] = RunFolder.at(f"{bucket}/run/runs", name).result() or {}
    assert results["bucket"]["scores"] == results["folder"]["scores"]
    assert results["bucket"]["weights_sha256"] == results["folder"]["weights_sha256"]
    first = RunFolder.at(f"{bucket}/run/runs", "first")
    assert results["folder"]["weights_sha256"] != (first.result() or {})["weights_sha256"], "the control"
    loaded = load_network(f"{bucket}/run/runs/first").state_dict()
    assert torch.equal(loaded["key_proj.key_proj.weight"], load_network(init).state_dict()["key_proj.key_proj.weight"])

    runs = finished_runs(f"{bucket}/run/runs")
    assert {run.name for run in runs} >= {"first", "folder", "bucket"}
    later = score_run(first, [f"evaluation.also=later={bucket}/run/val"], print)
    assert later["later/jf"] == (first.result() or {})["scores"]["jf"]

    export(Path(f"{bucket}/run/runs/bucket"), str(tmp_path / "for-others.safetensors"))
    own = load_network(f"{bucket}/run/runs/bucket").state_dict()
    for name, tensor in load_network(tmp_path / "for-others.safetensors").state_dict().items():
        assert torch.equal(tensor, own[name])
    assert f"J&F {results['bucket']['scores']['jf']:.1f}" in (tmp_path / "for-others.md").read_text()
    assert "on val val" in (tmp_path / "for-others.md").read_text()

    Storage(f"{bucket}/run/runs/first").write(b"other", "network.safetensors")
    with pytest.raises(WeightsError, match="replaced"):
        weights_file(init, sha256="0" * 64)


def test_a_bucket_that_is_gone_is_named_and_the_data_is_not_blamed(
    server: Server, bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(local / "shards", f"{bucket}/gone/shards")
    reader = ShardReader(f"{bucket}/gone/shards")
    monkeypatch.setattr("ovos_ray.storage.PATIENCE_S", 1.0)
    expected = reader.read(reader.index.videos[0].name, [0])
    server.fail(1.0, "error")
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        reader.read(reader.index.videos[0].name, [0])
    assert "pack" not in str(caught.value)
    assert not reader._files, "what is asked for again is opened anew"
    server.fail(0)
    assert reader.read(reader.index.videos[0].name, [0]) == expected


class FailsOnce:
    """A bucket's file system whose every kind of request fails the first time, and not again."""

    def __init__(self, filesystem: fs.FileSystem) -> None:
        self.filesystem, self.failed = filesystem, set[str]()

    def __getattr__(self, name: str) -> Any:
        def request(*arguments: Any) -> Any:
            self.fail(name)
            return getattr(self.filesystem, name)(*arguments)

        return request

    def fail(self, name: str) -> None:
        if name not in self.failed:
            self.failed.add(name)
            raise OSError("AWS Error NETWORK_CONNECTION: Timeout was reached")


def test_records_that_were_not_sent_outlive_the_machine_and_are_sent_from_another(
    bucket: str, store: str, client: Any, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "_PATIENCE_WHEN_AWAY_S", 0.5)
    copy_files, failing = fs.copy_files, list[FailsOnce]()

    def copy(source: str, target: str, *filesystems: Any) -> None:
        for one in filesystems:
            if isinstance(one, FailsOnce):
                one.fail("copy_files")
        copy_files(source, target, *(getattr(one, "filesystem", one) for one in filesystems))

    def failing_once(place: Storage) -> Storage:
        place.fs = FailsOnce(place.fs)
        failing.append(place.fs)
        return place

    monkeypatch.setattr(fs, "copy_files", copy)
    storage = Storage(bucket) / "away" / "study"
    runs = {"sweep": None, "one": "sweep", "two": "sweep"}
    for name, parent in runs.items():
        sink = Sink.open(store, "bucket", name, name=name, parent_key=parent, spool=tmp_path / "node" / name)
        # The server is away: nobody sends, as far as this machine lives.
        sink._sender.drain = lambda: (_ for _ in ()).throw(ConnectionError("away"))
        sink.log_metrics({"a": 1.0}, 1)
        sink.log_artifact(b"text", "note.txt")
        sink.flush(0.5)
        assert not finish_and_keep(sink, failing_once(storage / name))
    shutil.rmtree(tmp_path / "node")

    assert not client.get_experiment_by_name("bucket")
    assert sync_bucket(failing_once(Storage(bucket) / "away")) == []
    assert [one.failed for one in failing] == [{"copy_files"}] * 3 + [{"get_file_info", "copy_files", "delete_dir"}]
    parent = the_run(client, "bucket", "sweep")
    for name in ("one", "two"):
        run = the_run(client, "bucket", name)
        assert run.info.status == "FINISHED"
        assert history(client, run, "a") == [(1, 1.0)]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert not any((storage / name).exists("tracking", "run.json") for name in runs)
    assert [(storage / name / "tracking").folders() for name in runs] == [[], [], []], "what was sent is removed"
    assert sync_bucket(Storage(bucket) / "away") == []


def test_masks_in_a_bucket_are_scored_as_their_folder(bucket: str, server: Server, tmp_path: Path) -> None:
    pred, gt = make_davis_masks(tmp_path)
    place = f"{bucket}/scored/predictions"
    for video in ("bear", "swan"):
        send_masks(pred, video, Storage(place))
    server.fail(0.2, "error", "cut")
    with unpacked(place) as folder:
        assert evaluate_folders(folder, gt, "davis2017", num_processes=1) == evaluate_folders(pred, gt, "davis2017")
    assert not folder.exists()
    with unpacked(place, ["bear"]) as folder:
        assert [path.name for path in folder.iterdir()] == ["bear"]
    with pytest.raises(DataError, match=f"no archives(?s:.*)further down: {place}"), unpacked(f"{bucket}/scored"):
        pass
