"""A process that dies while it writes an index leaves the shards that were there, whatever it had written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from davis_folder import make_davis

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.index import INDEX_NAME, ShardIndex
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack


class Dying(BaseException):
    """A process that ends: no handler of errors may mend it."""


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_pack_that_dies_at_any_byte_of_its_index_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    source, out = open_dataset(make_davis(tmp_path / "davis"), "davis2017"), tmp_path / "shards"
    before = pack(source, out)
    length = (out / INDEX_NAME).stat().st_size
    if not overwrite:
        shutil.rmtree(out)
    write = Path.write_bytes

    def dies_after(taken: int) -> Callable[..., int]:
        def write_bytes(path: Path, content: bytes) -> int:
            if not path.name.startswith(f".{INDEX_NAME}"):
                return write(path, content)
            write(path, content[:taken])
            raise Dying

        return write_bytes

    # Nothing is tidied up in its death throes; what it has left is found by the next one.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    for taken in (*range(0, length, 97), length - 1):
        monkeypatch.setattr(Path, "write_bytes", dies_after(taken))
        with pytest.raises(Dying):
            pack(source, out, split="train", labels="all", overwrite=overwrite)
        assert (ShardIndex.load(out) == before) if overwrite else not out.exists(), f"after {taken} of {length} bytes"
    monkeypatch.undo()
    pack(source, out, labels="all", overwrite=overwrite)
    assert verify(out) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_index_cut_at_any_byte_is_refused_by_name(tmp_path: Path) -> None:
    out = tmp_path / "shards"
    pack(open_dataset(make_davis(tmp_path / "davis"), "davis2017"), out)
    whole = (out / INDEX_NAME).read_bytes()
    for taken in range(len(whole.rstrip())):
        (out / INDEX_NAME).write_bytes(whole[:taken])
        with pytest.raises(DataError, match=INDEX_NAME):
            ShardIndex.load(out)
