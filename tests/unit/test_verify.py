from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from davis_folder import HEIGHT, WIDTH
from PIL import Image

from ovos_ray.data.folders.open import DatasetFolder
from ovos_ray.data.masks import encode_jpeg, encode_mask
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import DataError
from ovos_ray.packing.pack import pack


def _rewrite(out: Path, change: Any) -> None:
    """Changes one row of a shard file, all else as it was."""
    path = out / "frames-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(
        pa.Table.from_pylist(rows, table.schema), path, row_group_size=4, compression="none", use_dictionary=False
    )


def _swap(rows: list[dict[str, Any]]) -> None:
    rows[7]["jpeg"], rows[8]["jpeg"] = rows[8]["jpeg"], rows[7]["jpeg"]


def _cut(rows: list[dict[str, Any]]) -> None:
    rows[7]["jpeg"] = rows[7]["jpeg"][:-500]


def _other_label(rows: list[dict[str, Any]]) -> None:
    rows[8]["label"] = encode_mask(np.full((HEIGHT, WIDTH), 2, np.uint8))


def _small_label(rows: list[dict[str, Any]]) -> None:
    rows[8]["label"] = encode_mask(np.ones((9, 9), np.uint8))


def _broken_label(rows: list[dict[str, Any]]) -> None:
    rows[8]["label"] = rows[8]["label"][:-40]


def _no_label(rows: list[dict[str, Any]]) -> None:
    rows[8]["label"] = None


def _smuggled_label(rows: list[dict[str, Any]]) -> None:
    rows[7]["label"] = rows[8]["label"]


def _small_frame(rows: list[dict[str, Any]]) -> None:
    rows[7]["jpeg"] = encode_jpeg(np.zeros((9, 9, 3), np.uint8))


def _png_frame(rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(buffer, "PNG")
    rows[7]["jpeg"] = buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "row", "what"),
    [
        (_swap, 7, "checksum differs"),
        (_cut, 7, "damaged image"),
        (_small_frame, 7, r"frame of \(9, 9\)"),
        (_png_frame, 7, "not a JPEG"),
        (_other_label, 8, r"label shows objects \[2\], the index has \[1, 3\]"),
        (_small_label, 8, r"label of \(9, 9\)"),
        (_broken_label, 8, "label: damaged image"),
        (_no_label, 8, "label is missing"),
        (_smuggled_label, 7, "label that the index does not have"),
    ],
)
def test_verify_finds_every_damaged_row(davis: DatasetFolder, tmp_path: Path, change: Any, row: int, what: str) -> None:
    out = tmp_path / "shards"
    pack(davis, out)
    _rewrite(out, lambda rows: None)
    assert verify(out) == []
    _rewrite(out, change)
    problems = verify(out)
    assert any("checksum differs" in problem.what for problem in problems)
    found = [problem for problem in problems if problem.row == row]
    assert any(re.search(what, problem.what) for problem in found)
    assert {(problem.file, problem.video, problem.frame) for problem in found} == {
        ("frames-00000.parquet", "v1", row - 6)
    }
    with pytest.raises(DataError, match=rf"frame {row - 6} of video 'v1' is damaged"):
        ShardReader(out).read("v1", [row - 6])


def test_verify_finds_damaged_missing_and_disagreeing_files(davis: DatasetFolder, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    pack(davis, out, shard_bytes=1)
    index = (out / "index.json").read_text()
    good = (out / "frames-00001.parquet").read_bytes()

    (out / "frames-00001.parquet").write_bytes(good[:-20])
    (problem,) = verify(out)
    assert (problem.file, "unreadable shard file" in problem.what) == ("frames-00001.parquet", True)
    with pytest.raises(DataError, match=r"frames-00001\.parquet: unreadable"):
        ShardReader(out).read("v1", [0])
    assert ShardReader(out).read("v0", [0]), "other files still serve"

    (out / "frames-00001.parquet").unlink()
    (problem,) = verify(out)
    assert "shard file is missing" in problem.what
    with pytest.raises(DataError, match="missing"):
        ShardReader(out).read("v1", [0])

    shutil.copy(out / "frames-00000.parquet", out / "frames-00001.parquet")
    assert any("the index has" in problem.what for problem in verify(out))
    with pytest.raises(DataError, match="where the index has frame 0 of 'v1'"):
        ShardReader(out).read("v1", [0])

    (out / "frames-00001.parquet").write_bytes(good)
    (out / "index.json").write_text(index.replace('"labelled_frames":3', '"labelled_frames":2'))
    assert any("budget says 2 of 18" in problem.what for problem in verify(out))
    (out / "index.json").write_text(index.replace('"digest":"', '"digest":"0', 1))
    assert [problem.what for problem in verify(out)] == ["its digest is not that of the rows"]
    (out / "index.json").write_text(index[:-30])
    with pytest.raises(DataError, match="unreadable index"):
        verify(out)
    (out / "index.json").write_text(index.replace('"version":1', '"version":99'))
    with pytest.raises(DataError, match="version 99, expected 1"):
        ShardReader(out)
    (out / "index.json").unlink()
    with pytest.raises(DataError, match="no shards here"):
        ShardReader(out)
