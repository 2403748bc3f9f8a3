"""The index of many videos as the processes of a node share it: read once, one copy, never an older one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from davis_folder import make_davis

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards import mapped_table as module
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack
from ovos_ray.storage import Storage


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("mapped")
    index = pack(open_dataset(make_davis(base / "davis", num_videos=3)), base / "shards", labels="all")
    index.save(Storage(str(base / "shards")), columnar=True)
    return base / "shards"


@pytest.fixture
def shards(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(packed, tmp_path / "shards"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tables that were read from shards."""
    names: list[str] = []
    read = Storage.read

    def counted(storage: Storage, name: str) -> bytes:
        names.extend([name] * name.endswith(".parquet"))
        return read(storage, name)

    monkeypatch.setattr(Storage, "read", counted)
    return names


def test_a_table_is_read_once_for_all_processes_and_copies_of_its_shards(
    shards: Path, tmp_path: Path, reads: list[str]
) -> None:
    real = ShardIndex.load(shards)
    reads.clear()
    assert ShardIndex.shared(shards) == real
    assert reads == [real.table_name]
    assert ShardIndex.shared(shutil.copytree(shards, tmp_path / "copy")) == real
    assert ShardIndex.shared(f"file://{shards}") == real
    code = (
        "import sys; from ovos_ray.data.shards.index import ShardIndex; from ovos_ray.storage import Storage\n"
        "index = ShardIndex.shared(sys.argv[1]); print([video.name for video in index.videos])\n"
        "print([line.split()[1] for line in open('/proc/self/maps') if line.rstrip().endswith('.arrow')])"
    )
    (shards / real.table_name).unlink()  # no process needs it any more
    output = subprocess.run([sys.executable, "-c", code, str(shards)], check=True, capture_output=True, text=True)
    names, maps = output.stdout.splitlines()
    assert names == str([video.name for video in real.videos])
    if sys.platform == "linux":
        assert maps == "['r--s']", "mapped for reading, shared, and not copied"
    assert reads == [real.table_name]
    with pytest.raises(DataError, match="missing"):
        ShardIndex.load(shards)  # as `doctor` and `verify` do, who look at the files themselves


def test_a_table_packed_anew_is_never_taken_for_the_old_one(shards: Path) -> None:
    old = ShardIndex.shared(shards)
    file = shards / old.table_name
    table = pq.read_table(file)
    heights = table.schema.get_field_index("height")
    pq.write_table(
        table.set_column(heights, table.schema.field("height"), pa.array([47] * 3, pa.int32())),
        file, compression="none", use_dictionary=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="not the one that the index was written with"):
        ShardIndex.load(shards)
    header = json.loads((shards / "index.json").read_text())
    del header["videos"]["digest"]  # as an earlier version wrote it
    (shards / "index.json").write_text(json.dumps(header))
    assert [video.height for video in ShardIndex.shared(shards).videos] == [47] * 3
    ShardIndex.load(shards).save(Storage(str(shards)), columnar=True)
    new = ShardIndex.shared(shards)
    assert (new.source_digest, [video.height for video in new.videos]) == (old.source_digest, [47] * 3)
    assert [video.height for video in old.videos] == [48] * 3, "who has the old one keeps it"


@pytest.mark.parametrize("digest", ["../../0123456789abcdef0123456789", "", 5, "A" * 32])
def test_a_digest_that_is_none_becomes_no_path(shards: Path, digest: object) -> None:
    header = json.loads((shards / "index.json").read_text())
    header["videos"]["digest"] = digest
    (shards / "index.json").write_text(json.dumps(header))
    with pytest.raises(DataError, match=r"damaged index .*digest"):
        ShardIndex.shared(shards)


def test_a_folder_that_others_may_write_to_or_that_is_a_link_or_a_file_is_not_used(
    shards: Path, tmp_path: Path, reads: list[str]
) -> None:
    own = ShardIndex.load(shards)
    folder = tmp_path / "cache" / "indices"
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    for make in (lambda: None, lambda: folder.symlink_to(elsewhere), lambda: folder.write_text("")):
        make()
        reads.clear()
        assert ShardIndex.shared(shards) == own
        assert reads == [own.table_name]
        assert folder.is_file() or list(folder.iterdir()) == []
        if folder.is_dir() and not folder.is_symlink():
            folder.rmdir()
        else:
            folder.unlink()


def test_a_full_disk_leaves_the_table_in_memory_and_nothing_behind(
    shards: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.pa.ipc, "new_file", full)
        index = ShardIndex.shared(shards)
    assert len(list(index.videos)) == 3
    assert reads == [index.table_name], "it is not read twice"
    assert [path.name for path in (tmp_path / "cache" / "indices").iterdir()] == ["lock"]


def test_a_damaged_copy_is_made_anew_and_an_unused_one_removed(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "indices"
    own = ShardIndex.load(shards)
    assert ShardIndex.shared(shards) == own
    (copy,) = folder.glob("*.arrow")
    whole = copy.read_bytes()
    unused, used = (folder / f"{digit * 32}.arrow" for digit in "01")
    left = folder / f".{'2' * 32}.arrow.host-1-abcdef01.tmp"
    theirs = [folder / name for name in ("notes.txt", "stocks.arrow", ".hidden.tmp")]
    for other, days in ((unused, 70), (used, 20), (left, 70), *((one, 70) for one in theirs)):
        other.write_bytes(b"")
        os.utime(other, (time.time() - days * 86400,) * 2)
    for content in (b"", whole[: len(whole) // 2], b"x" * len(whole)):
        copy.write_bytes(content)
        assert ShardIndex.shared(shards) == own
        assert copy.read_bytes() == whole
    assert used.is_file()
    assert not unused.exists()
    assert not left.exists()
    assert all(one.is_file() for one in theirs), "the folder lies where the user says, and may hold their own files"
