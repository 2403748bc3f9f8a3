"""Packing in parts: the same bytes in any number of processes, kept over kills and repairs, on disks and in buckets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from davis_folder import make_davis
from processes import answers, free_port, wait_for
from pyarrow import fs
from typer.testing import CliRunner

from ovos_ray import lease
from ovos_ray.cli.app import app
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import DataError, HeldError, ResourceError
from ovos_ray.packing.pack import pack
from ovos_ray.packing.parts import Part, in_processes, make_part
from ovos_ray.storage import Storage


@pytest.fixture
def davis(tmp_path: Path) -> DatasetFolder:
    return open_dataset(make_davis(tmp_path / "davis", num_videos=5), "davis2017")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _made_backwards(parts: Sequence[Part]) -> Iterator[tuple[Part, list[str]]]:
    yield from ((part, make_part(part)) for part in reversed(parts))


def test_processes_and_their_order_change_no_byte(davis: DatasetFolder, tmp_path: Path) -> None:
    one = pack(davis, tmp_path / "one", labels=2, shard_bytes=40_000)
    assert len(one.files) == 3
    pack(davis, tmp_path / "two", labels=2, shard_bytes=40_000, num_workers=2)
    pack(davis, tmp_path / "backwards", labels=2, shard_bytes=40_000, runner=_made_backwards, num_threads=1)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two") == _bytes(tmp_path / "backwards")
    assert verify(tmp_path / "two") == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    other = pack(davis, tmp_path / "other", labels=2, shard_bytes=1)
    assert (other.digest, len(other.files)) == (one.digest, 5)


def _times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("frames-*.parquet"))}


def test_a_killed_pack_keeps_finished_files_and_redoes_damaged_and_half_ones(
    davis: DatasetFolder, tmp_path: Path
) -> None:
    script = (
        "import sys, time\n"
        "from ovos_ray.data.folders.open import open_dataset\n"
        "from ovos_ray.packing.pack import pack\n"
        "def wait(done, total):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(60 if done == 4 else 0)\n"
        "pack(open_dataset(sys.argv[1], 'davis2017'), sys.argv[2], progress=wait, shard_bytes=1)\n"
    )
    out, left = tmp_path / "shards", tmp_path / ".shards.packing"
    with subprocess.Popen(
        [sys.executable, "-c", script, davis.root, out], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for done in "1234":
            assert process.stdout.readline().strip() == done
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    before = _times(left)
    assert sorted(before) == [f"frames-{number:05d}.parquet" for number in range(3)], "the fourth was being written"
    damaged = left / "frames-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    time.sleep(0.01)
    told: list[int] = []
    pack(davis, out, shard_bytes=1, progress=lambda done, _: told.append(done))
    assert told == [1, 2, 3, 4, 5]
    after = _times(out)
    assert [name[7:12] for name, at in before.items() if after[name] == at] == ["00000", "00002"]
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["davis", "shards"]
    pack(davis, tmp_path / "fresh", shard_bytes=1)
    assert _bytes(out) == _bytes(tmp_path / "fresh")


def test_what_was_finished_is_kept_when_a_file_is_mended_and_not_with_other_options(
    davis: DatasetFolder, tmp_path: Path
) -> None:
    mask = davis.root / "Annotations/480p/v3/00000.png"
    whole = mask.read_bytes()
    mask.write_bytes(whole[:-20])
    out, left = tmp_path / "shards", tmp_path / ".shards.packing"
    with pytest.raises(DataError, match=r"(?s)1 problem.*00000\.png"):
        pack(davis, out, shard_bytes=1)
    before = _times(left)
    assert len(before) == 4
    mask.write_bytes(whole)
    time.sleep(0.01)
    pack(davis, out, shard_bytes=1)
    after = _times(out)
    assert [name for name in after if after[name] == before.get(name)] == list(before)
    mask.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="1 problem"):
        pack(davis, tmp_path / "other", shard_bytes=1)
    mask.write_bytes(whole)
    assert pack(davis, tmp_path / "other", shard_bytes=1, labels="all").budget.labelled_frames == 30
    assert verify(tmp_path / "other") == []


def test_a_second_pack_in_one_process_sees_what_was_added(tmp_path: Path) -> None:
    for number in (2, 3):
        root = make_davis(tmp_path / "davis", num_videos=number) if number == 2 else tmp_path / "davis"
        if number == 3:
            for part in ("JPEGImages", "Annotations"):
                shutil.copytree(root / part / "480p/v0", root / part / "480p/v7")
            (root / "ImageSets/2017/train.txt").write_text("v0\nv1\nv7\n")
        index = pack(open_dataset(root, "davis2017"), tmp_path / "shards", overwrite=True)
        assert len(index.videos) == number


def test_a_second_pack_of_the_same_folder_is_refused_while_the_first_runs(davis: DatasetFolder, tmp_path: Path) -> None:
    out, problems = tmp_path / "shards", []

    def second(done: int, total: int) -> None:
        if done == 1:
            with pytest.raises(DataError, match=f"process {os.getpid()} .* is packing it") as error:
                pack(davis, out, labels="all")
            problems.append(error.value)

    pack(davis, out, progress=second)
    assert len(problems) == 1
    assert verify(out) == []


def test_a_hidden_folder_of_somebody_else_is_left_alone(davis: DatasetFolder, tmp_path: Path) -> None:
    theirs = tmp_path / ".shards.packing" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("words")
    with pytest.raises(DataError, match="did not make it"):
        pack(davis, tmp_path / "shards")
    assert theirs.read_text() == "words"


def _dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_named_and_the_next_call_goes_on(
    davis: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ovos_ray.packing.parts.make_part", _dies)
        with pytest.raises(ResourceError, match="packing processes died") as error:
            pack(davis, tmp_path / "shards", runner=lambda parts: in_processes(parts, 2))
    assert "finished files are kept" in (error.value.remedy or "")
    pack(davis, tmp_path / "shards")
    assert verify(tmp_path / "shards") == []


def test_the_command_packs_in_processes_that_import_nothing_from_the_current_folder(
    davis: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.version_info >= (3, 11):
        (tmp_path / "multiprocessing.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    command = ["pack", "davis2017", "--root", str(davis.root), "--out", str(tmp_path / "shards"), "--num-workers", "2"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "5 videos, 30 frames" in result.output
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        wait_for(lambda: answers(port, "/"), 60)
        fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True).create_dir("packed")
        yield "s3://packed"
    server.terminate()
    server.wait(30)


def _objects(uri: str) -> list[str]:
    system, path = fs.FileSystem.from_uri(uri)
    found = system.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted(info.path.removeprefix(f"{path}/") for info in found if info.type == fs.FileType.File)


@pytest.mark.slow
def test_a_bucket_is_packed_straight_resumed_and_replaced(davis: DatasetFolder, tmp_path: Path, bucket: str) -> None:
    uri = f"{bucket}/shards/davis"
    here = pack(davis, tmp_path / "here", shard_bytes=1)

    def stops(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(davis, uri, shard_bytes=1, progress=stops)
    assert "index.json" not in _objects(uri)
    with pytest.raises(DataError, match="no shards here"):
        ShardIndex.load(uri)
    there = pack(davis, uri, shard_bytes=1, num_workers=2)
    assert (there.digest, tuple(there.videos)) == (here.digest, tuple(here.videos))
    assert _objects(uri) == sorted(["index.json", *(file.name for file in there.files)]), "nothing else is left"
    assert verify(uri) == []
    assert pack(davis, uri, shard_bytes=1) == there
    with pytest.raises(DataError, match="holds other shards"):
        pack(davis, uri, labels="all")
    damaged = davis.root / "JPEGImages/480p/v4/00003.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-600])
    with pytest.raises(DataError, match="1 problem"):
        pack(davis, uri, labels="all", overwrite=True, shard_bytes=1)
    assert ShardIndex.load(uri) == there, "what fails leaves the shards that were there"
    damaged.write_bytes(whole)
    everything = pack(davis, uri, labels="all", overwrite=True)
    assert everything.budget.labelled_frames == 30
    assert _objects(uri) == sorted(["index.json", *(file.name for file in everything.files)])
    assert verify(uri) == []
    system, path = fs.FileSystem.from_uri(f"{bucket}/project/index.json")
    with system.open_output_stream(path) as file:
        file.write(b"{}")
    with pytest.raises(DataError, match="not one of shards"):
        pack(davis, f"{bucket}/project", overwrite=True)
    assert _objects(f"{bucket}/project") == ["index.json"]
    command = ["verify", uri]
    assert "every row is good" in CliRunner().invoke(app, command, catch_exceptions=False).output


@pytest.mark.slow
def test_a_second_pack_into_the_same_bucket_is_refused_and_one_that_lost_it_publishes_nothing(
    davis: DatasetFolder, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_BEAT_S", 0.05)
    monkeypatch.setattr(lease, "_SILENT_S", 0.4)
    uri, problems = f"{bucket}/shared", list[str]()
    for left in ("frames-00007-0123abcd.parquet.89abcdef.tmp", "index.json.89abcdef.tmp", "thesis.parquet.tmp"):
        Storage(uri).write(b"left", left)

    def second(done: int, total: int) -> None:
        if done == 1:
            with pytest.raises(DataError, match=f"process {os.getpid()} .* is packing it") as error:
                pack(davis, uri, labels="all", overwrite=True, shard_bytes=1)
            problems.append(str(error.value))

    index = pack(davis, uri, overwrite=True, shard_bytes=1, progress=second)
    assert len(problems) == 1
    assert verify(uri) == []
    assert _objects(uri) == sorted(["index.json", "thesis.parquet.tmp", *(file.name for file in index.files)])

    monkeypatch.setattr(lease, "_BEAT_S", 60.0)  # no beat comes between

    def taken_over(done: int, total: int) -> None:
        if done == total:
            Storage(uri).write(b"process 1 on another\ntoken\n0\n", "lease")

    with pytest.raises(HeldError, match="taken over by process 1 on another"):
        pack(davis, uri, labels="all", overwrite=True, shard_bytes=1, progress=taken_over)
    assert ShardIndex.load(uri) == index
    assert Storage(uri).read("lease").startswith(b"process 1 on another"), "it is not one's own"


def test_the_lock_is_free_again_after_a_failure(davis: DatasetFolder, tmp_path: Path) -> None:
    (davis.root / "Annotations/480p/v0/00000.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match="1 problem"):
            pack(davis, tmp_path / "shards")
    assert not (tmp_path / ".shards.packing").exists(), "nothing was finished"
