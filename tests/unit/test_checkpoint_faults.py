"""Every way in which writing a checkpoint can end, and every bit that its marker can lose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs

from ovos_ray.errors import CheckpointError
from ovos_ray.io import atomic_path
from ovos_ray.storage import Storage
from ovos_ray.train.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(Storage(str(tmp_path / "checkpoints")), keep=5)
    for step in (10, 500):
        store.save(step, {"step": step})
    return store


def file(store: CheckpointStore, step: int, name: str) -> Path:
    return Path(store.storage.path(f"step-{step:08d}", name))


def test_every_flipped_bit_of_a_marker_makes_its_checkpoint_incomplete(store: CheckpointStore) -> None:
    marker = file(store, 500, "complete.json")
    whole = marker.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        marker.write_bytes(content)
        assert store.latest() == 10, f"bit {bit}: {bytes(content)!r}"
    marker.write_bytes(whole)
    assert store.latest() == 500


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b"", b"3", b'"step"', b"\xff\xfe", b"[" * 100_000])
def test_a_marker_of_another_kind_makes_its_checkpoint_incomplete(store: CheckpointStore, content: bytes) -> None:
    file(store, 500, "complete.json").write_bytes(content)
    assert store.latest() == 10


def test_a_checkpoint_in_the_folder_of_another_step_is_incomplete(store: CheckpointStore) -> None:
    shutil.rmtree(file(store, 500, "."))
    shutil.copytree(file(store, 10, "."), file(store, 500, "."))
    assert store.latest() == 10
    with pytest.raises(CheckpointError, match=r"step-00000500.*do not match its marker"):
        store.load(500)


@pytest.mark.parametrize("name", ["complete.json", "state.pt"])
def test_a_folder_in_a_file_s_place_makes_a_checkpoint_incomplete(store: CheckpointStore, name: str) -> None:
    file(store, 500, name).unlink()
    file(store, 500, name).mkdir()
    assert store.latest() == 10


def test_a_storage_out_of_reach_is_an_error_and_no_missing_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that took silence for absence would start anew, and remove what it could not see."""

    def away(*_: object) -> bytes:
        raise OSError("connection refused")

    monkeypatch.setattr(Storage, "read", away)
    with pytest.raises(OSError, match="connection refused"):
        store.latest()


class Dying(BaseException):
    """A process that ends: no handler of errors may mend it."""


class DyingFile:
    """Takes so many bytes, then dies, as a process does; what it took is on the disk."""

    def __init__(self, budget: int) -> None:
        self.left = budget

    def write_bytes(self, path: Path, content: bytes | memoryview) -> int:
        taken = bytes(content[: self.left])
        with open(path, "wb") as out:
            out.write(taken)
        self.left -= len(taken)
        if len(taken) < len(content):
            raise Dying
        return len(content)


@pytest.mark.slow
def test_a_writer_that_dies_at_any_byte_leaves_the_checkpoint_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"step": 600, "weight": torch.arange(8.0)}
    store.save(600, state)
    whole = sum(file(store, 600, name).stat().st_size for name in ("state.pt", "complete.json"))
    shutil.rmtree(file(store, 600, "."))
    # In its death throes nothing is tidied up: what was half written stays.
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    for budget in range(whole):
        dying = DyingFile(budget)
        monkeypatch.setattr(Path, "write_bytes", lambda path, content, dying=dying: dying.write_bytes(path, content))
        with pytest.raises(Dying):
            store.save(600, state)
        assert store.latest() == 500, f"after {budget} of {whole} bytes"
        shutil.rmtree(file(store, 600, "."))
    monkeypatch.undo()
    store.save(600, state)
    assert store.latest() == 600
    assert torch.equal(store.load(600)["weight"], state["weight"])


_LIMITED = """
import resource, signal, sys
import torch
from ovos_ray.storage import Storage
from ovos_ray.train.checkpoint import CheckpointStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = CheckpointStore(Storage(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    store.save(600, {"step": 600, "weight": torch.zeros(4000)})
except OSError as error:
    print("refused", error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("latest", store.latest())
store.save(700, {"step": 700, "weight": torch.zeros(4000)})
print("latest", store.latest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 50, 4096, 12_000])
def test_a_disk_that_takes_no_more_leaves_the_checkpoint_before_and_the_next_one_is_written(
    store: CheckpointStore, limit: int
) -> None:
    """The system itself ends the write, as on a full disk; the writer is another process."""
    printed = subprocess.run(
        [sys.executable, "-c", _LIMITED, store.storage.root, str(limit)], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert printed[0].startswith("refused")
    assert printed[1:3] == ["latest 500", "latest 700"]
    assert not list(Path(store.storage.root).rglob("*.tmp"))


def test_a_full_disk_leaves_the_checkpoint_before_and_the_next_one_is_written_when_there_is_room(
    small_disk: Path,
) -> None:
    store = CheckpointStore(Storage(str(small_disk / "checkpoints")))
    store.save(10, {"step": 10})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    with pytest.raises(OSError, match="No space left"):
        store.save(20, {"step": 20, "weight": torch.zeros(8000)})
    assert store.latest() == 10
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    store.save(30, {"step": 30, "weight": torch.zeros(8000)})
    assert store.latest() == 30


def test_new_folders_are_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut takes the folder, and the synced file with it."""
    synced = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with atomic_path(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_text("x")
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


class _Breaking:
    """A bucket in memory whose connection breaks in the middle of an object."""

    def __init__(self) -> None:
        self.inner = fs._MockFileSystem()
        self.breaks = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def open_output_stream(self, path: str) -> Any:
        stream, breaks = self.inner.open_output_stream(path), self.breaks

        class Stream:
            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def write(self, content: bytes) -> None:
                stream.write(content[:3] if breaks else content)
                if breaks:
                    raise OSError("connection reset")

        return Stream()


def test_an_object_whose_upload_broke_is_not_published(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    bucket = _Breaking()
    storage.fs, storage.local, storage.root = bucket, False, "runs"  # type: ignore[assignment]
    bucket.inner.create_dir("runs")
    storage.write(b"the first", "a.bin")
    bucket.breaks = True
    for name in ("a.bin", "b.bin"):
        with pytest.raises(OSError, match="connection reset"):
            storage.write(b"the second", name)
    assert storage.read("a.bin") == b"the first"
    assert not storage.exists("b.bin")
    left = bucket.inner.get_file_info(fs.FileSelector("runs", recursive=True))
    assert [info.base_name for info in left] == ["a.bin"]
