"""A store that fails now and then is asked again; what lasts is said of the store and never of the data."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ovos_ray import storage
from ovos_ray.data.shards.ranged_file import RangedFile
from ovos_ray.errors import OvosError, StorageError
from ovos_ray.storage import Storage, location_of, persistently

TIMEOUT = "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 28, Timeout was reached"
DENIED = "AWS Error ACCESS_DENIED during HeadObject operation: No response body."


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 0.5)
    monkeypatch.setattr(storage, "_PAUSE_S", 0.01)


def failing(*errors: BaseException, value: bytes = b"there") -> tuple[Callable[[], bytes], list[int]]:
    """A request that fails so often, and how often it was made."""
    calls: list[int] = []

    def request() -> bytes:
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return value

    return request, calls


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("s3://b/x", OSError(TIMEOUT)),
        ("s3://b/x", OSError("AWS Error UNKNOWN (HTTP status 500) during GetObject operation")),
        ("s3://b/x", OSError("AWS Error SLOW_DOWN (HTTP status 429) during GetObject operation")),
        ("/disk/x", OSError(errno.EIO, "Input/output error")),
        ("/disk/x", OSError(errno.ESTALE, "Stale file handle")),
    ],
)
def test_what_passes_is_asked_again(location: str, error: OSError) -> None:
    request, calls = failing(error, error)
    assert persistently(location, request) == b"there"
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("location", "error", "raised"),
    [
        ("s3://b/x", FileNotFoundError("none"), FileNotFoundError),
        ("/disk/x", OSError(errno.ENOSPC, "full"), OSError),
        ("s3://b/x", OSError(DENIED), StorageError),
        ("s3://b/x", OSError("AWS Error UNKNOWN (HTTP status 400) during GetObject operation"), StorageError),
        ("s3://b/x", ValueError("no parquet"), ValueError),
    ],
)
def test_what_is_no_accident_is_asked_once(location: str, error: Exception, raised: type[Exception]) -> None:
    request, calls = failing(error)
    with pytest.raises(raised) as caught:
        persistently(location, request)
    assert len(calls) == 1
    assert raised is StorageError or caught.value is error


def test_a_store_that_stays_away_is_named_and_its_data_is_not_blamed() -> None:
    request, calls = failing(*[OSError(TIMEOUT)] * 10_000)
    with pytest.raises(StorageError, match=r"s3://b/x: the storage cannot be reached.*Timeout") as caught:
        persistently("s3://b/x", request)
    assert len(calls) > 3
    assert "pack" not in str(caught.value)
    assert isinstance(caught.value, OvosError)
    assert isinstance(caught.value, OSError), "a checkpoint that a store does not take is tried again later"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class Bucket:
    """A file in a store that answers in part now and then."""

    def __init__(self, content: bytes, *, cut_every: int = 0) -> None:
        self.content, self.cut_every, self.asked = content, cut_every, list[tuple[int, int]]()

    def open_input_file(self, path: str) -> Bucket:
        return self

    def size(self) -> int:
        return len(self.content)

    def read_at(self, size: int, start: int) -> bytes:
        self.asked.append((start, size))
        found = self.content[start : start + size]
        return found[: size // 2] if self.cut_every and len(self.asked) % self.cut_every == 0 else found


def test_a_short_read_never_counts_and_what_is_kept_is_not_asked_for_again() -> None:
    content = bytes(range(256)) * 100
    bucket = Bucket(content, cut_every=2)
    file: Any = RangedFile(bucket, "x", "s3://b/x")  # type: ignore[arg-type]
    file.keep([(100, 200), (250, 300), (9000, 9100)], hole=64)
    assert bucket.asked[:2] == [(100, 200), (9000, 100)]
    asked = len(bucket.asked)
    for start, end in ((100, 300), (120, 130), (9000, 9100)):
        file.seek(start)
        assert file.read(end - start) == content[start:end]
    assert len(bucket.asked) == asked
    file.seek(-50, 2)
    assert file.read() == content[-50:]
    assert file.read(10) == b""
    assert len(bucket.asked) > asked


def test_a_file_that_went_stale_is_opened_again_unless_it_was_replaced() -> None:
    class Server(Bucket):
        opened = 0

        def open_input_file(self, path: str) -> Any:
            self.opened += 1
            return Stale(self.content) if self.opened == 1 else Bucket(self.content)

    class Stale(Bucket):
        def read_at(self, size: int, start: int) -> bytes:
            raise OSError(errno.ESTALE, "Stale file handle")

    server = Server(b"content")
    file = RangedFile(server, "x", "/nfs/x")  # type: ignore[arg-type]
    assert [file.part(0, 3), file.part(3, 7)] == [b"con", b"tent"]
    assert server.opened == 2

    replaced = Server(b"content")
    file = RangedFile(replaced, "x", "s3://b/x")  # type: ignore[arg-type]
    replaced.content = b"other content"
    with pytest.raises(FileNotFoundError, match="13 bytes now and had 7"):
        file.part(0, 3)


def test_a_removal_whose_answer_was_lost_is_no_error(tmp_path: Path) -> None:
    place = Storage(str(tmp_path))
    place.write(b"x", "a")
    delete = place.fs.delete_file

    def answer_lost(path: str) -> None:
        delete(path)
        raise OSError(errno.ECONNRESET, "reset")

    place.fs = type("Fs", (), {"delete_file": staticmethod(answer_lost)})()
    place.remove("a")
    with pytest.raises(FileNotFoundError):
        place.remove("a")


@pytest.mark.parametrize("text", ["s3://bucket/a", "gs://bucket", "file:///data/a", "/data/a", "a/b", "C:/a"])
def test_a_location_is_the_same_after_a_path(text: str) -> None:
    assert location_of(text) == location_of(Path(text)) == text
