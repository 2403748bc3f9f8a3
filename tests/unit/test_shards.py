from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from davis_folder import FRAMES, HEIGHT, WIDTH, make_davis
from PIL import Image

from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.data.masks import boxes, decode_image, decode_mask, encode_mask
from ovos_ray.data.shards.index import ShardIndex
from ovos_ray.data.shards.reader import ShardReader
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import ConfigError, DataError
from ovos_ray.packing.pack import pack
from ovos_ray.packing.prepare import map_in_order

PNG = b"\x89PNG"


def _corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def _cells(folder: Path) -> list[Any]:
    """Every value of every column of every file, whatever the schema says."""
    cells: list[Any] = []
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        cells += [cell for column in table.columns for cell in column.to_pylist()]
    return cells


def test_labels_first_holds_one_label_per_video_and_no_other_annotation_bytes(
    davis: DatasetFolder, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    index = pack(davis, out, labels="first")
    pngs = [cell for cell in _cells(out) if isinstance(cell, bytes) and cell.startswith(PNG)]
    assert len(pngs) == 3
    assert sum(path.read_bytes().count(PNG) for path in out.rglob("*") if path.is_file()) == 3
    later = [path.read_bytes()[33:] for path in davis.root.glob("Annotations/480p/*/00005.png")]
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not any(annotation in everything for annotation in later)
    assert [video.label_frames for video in index.videos] == [(0,), (2,), (0,)], "v1 shows no object before frame 2"
    assert str(index.budget) == "3 of 18 frames labelled (16.7 %)"
    assert {path.name for path in out.iterdir()} == {".ovos-ray", "index.json", "frames-00000.parquet"}


def test_labels_all_holds_every_label(davis: DatasetFolder, tmp_path: Path) -> None:
    index = pack(davis, tmp_path / "shards", labels="all")
    assert index.budget.labelled_frames == index.budget.total_frames == 18
    assert index.video("v1").objects[0] == ()
    assert [box.object_id for box in index.video("v1").objects[2]] == [1, 3]
    pngs = [cell for cell in _cells(tmp_path / "shards") if isinstance(cell, bytes) and cell.startswith(PNG)]
    assert len(pngs) == 18


@pytest.mark.parametrize("rows_per_group", [1, 4, 7])
@pytest.mark.parametrize("shard_bytes", [1, 2**30])
def test_frames_come_back_byte_for_byte(
    davis: DatasetFolder, tmp_path: Path, rows_per_group: int, shard_bytes: int
) -> None:
    out = tmp_path / "shards"
    index = pack(davis, out, rows_per_group=rows_per_group, shard_bytes=shard_bytes)
    assert len(index.files) == (3 if shard_bytes == 1 else 1)
    reader = pickle.loads(pickle.dumps(ShardReader(out)))
    for video in davis.videos("train"):
        order = [4, 0, 5, 2, 2]
        rows = reader.read(video.name, order)
        assert [row.frame for row in rows] == order
        for row in rows:
            assert row.jpeg == video.frames[row.frame].read_bytes()
            assert row.name == f"{row.frame:05d}"
            assert (row.label is None) == (row.frame != video.first_label)
            if row.label is not None:
                assert np.array_equal(decode_mask(row.label), video.mask(row.frame))
    assert verify(out) == []
    assert pickle.loads(pickle.dumps(reader)).read("v0", [1]) == reader.read("v0", [1])


def test_the_index_survives_a_round_trip_and_describes_the_labels(davis: DatasetFolder, tmp_path: Path) -> None:
    index = pack(davis, tmp_path / "shards")
    assert ShardIndex.load(tmp_path / "shards") == index
    entry = index.video("v1")
    assert (entry.num_frames, entry.height, entry.width) == (FRAMES, HEIGHT, WIDTH)
    assert entry.frame_names == tuple(f"{i:05d}" for i in range(FRAMES))
    assert entry.objects == {2: boxes(davis.video("train", "v1").mask(2))}
    first, second = entry.objects[2]
    assert dataclasses.astuple(first) == (1, 10, 5, 30, 17, 12 * 20)
    assert dataclasses.astuple(second) == (3, 41, 20, 60, 40, 20 * 19)
    with pytest.raises(DataError, match="no video 'v9'"):
        index.video("v9")


def test_the_digest_is_that_of_the_content_alone(davis: DatasetFolder, tmp_path: Path) -> None:
    a = pack(davis, tmp_path / "a", rows_per_group=1)
    b = pack(davis, tmp_path / "b", shard_bytes=1, num_threads=1)
    other = open_dataset(make_davis(tmp_path / "other", seed=1), "davis2017")
    assert a.digest == b.digest
    assert len({a.digest, pack(davis, tmp_path / "c", labels="all").digest, pack(other, tmp_path / "d").digest}) == 3


def test_the_labelled_frame_can_be_chosen(davis: DatasetFolder, tmp_path: Path) -> None:
    index = pack(davis, tmp_path / "a", label_frame=3)
    assert [video.label_frames for video in index.videos] == [(3,), (3,), (3,)]
    index = pack(davis, tmp_path / "b", label_frame={"v0": 5})
    assert [video.label_frames for video in index.videos] == [(5,), (2,), (0,)]
    with pytest.raises(DataError, match=r"v1/00001\.png: the mask chosen as label shows no object"):
        pack(davis, tmp_path / "c", label_frame=1)
    with pytest.raises(DataError, match="frame 9 has no mask"):
        pack(davis, tmp_path / "c", label_frame=9)
    with pytest.raises(DataError, match="no video 'v7'"):
        pack(davis, tmp_path / "c", label_frame={"v7": 0})
    with pytest.raises(ConfigError, match="labels='first'"):
        pack(davis, tmp_path / "c", label_frame=1, labels="all")


def test_scaling_keeps_ids_and_uses_the_published_size(davis: DatasetFolder, tmp_path: Path) -> None:
    index = pack(davis, tmp_path / "shards", shortest_side=31)
    height, width = int(HEIGHT * 31 / 48), int(WIDTH * 31 / 48)
    assert (index.videos[0].height, index.videos[0].width) == (height, width) == (31, 51)
    assert index.num_reencoded == 18
    row = ShardReader(tmp_path / "shards").read("v0", [0])[0]
    assert decode_image(row.jpeg).shape == (31, 51, 3)
    assert row.label is not None
    mask = decode_mask(row.label)
    expected = Image.fromarray(davis.video("train", "v0").mask(0)).resize((51, 31), Image.Resampling.NEAREST)
    assert np.array_equal(mask, np.asarray(expected))
    assert set(np.unique(mask)) == {0, 1, 3}
    assert verify(tmp_path / "shards") == []
    untouched = pack(davis, tmp_path / "large", shortest_side=48)
    assert untouched.num_reencoded == 0


def test_png_frames_are_stored_as_jpeg_and_counted(tmp_path: Path) -> None:
    root = make_davis(tmp_path / "davis")
    path = root / "JPEGImages/480p/v0/00002.jpg"
    with Image.open(path) as image:
        image.save(path.with_suffix(".png"))
    path.unlink()
    index = pack(open_dataset(root), tmp_path / "shards")
    assert index.num_reencoded == 1
    assert index.videos[0].frame_names[2] == "00002"
    assert ShardReader(tmp_path / "shards").read("v0", [2])[0].jpeg.startswith(b"\xff\xd8")


def test_video_files_are_packed(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    mask = np.zeros((48, 64), np.uint8)
    mask[8:20, 8:20] = 1
    (tmp_path / "clip.png").write_bytes(encode_mask(mask))
    index = pack(open_dataset(tmp_path, "folder"), tmp_path / "shards")
    assert (index.videos[0].num_frames, index.num_reencoded, index.videos[0].label_frames) == (4, 4, (0,))
    rows = ShardReader(tmp_path / "shards").read("clip", [0, 3])
    assert [round(float(decode_image(row.jpeg).mean()) / 40) for row in rows] == [0, 3]
    (tmp_path / "clip.png").unlink()
    (tmp_path / "masks/clip").mkdir(parents=True)
    (tmp_path / "masks/clip/00007.png").write_bytes(encode_mask(mask))
    with pytest.raises(DataError, match=r"00007\.png: mask of frame 7, but 'clip' has 4"):
        pack(open_dataset(tmp_path, "folder"), tmp_path / "other")


def test_packing_again_returns_at_once_and_never_replaces_unasked(davis: DatasetFolder, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    index = pack(davis, out)
    stamp = (out / "frames-00000.parquet").stat().st_mtime_ns
    assert pack(davis, out) == index
    assert (out / "frames-00000.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="holds other shards") as error:
        pack(davis, out, labels="all")
    assert "--overwrite" in (error.value.remedy or "")
    assert ShardIndex.load(out) == index
    assert pack(davis, out, labels="all", overwrite=True).budget.labelled_frames == 18
    assert ShardIndex.load(out).labels == "all"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["davis", "shards"]


def test_a_folder_that_holds_anything_else_is_never_touched(davis: DatasetFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("words")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"holds no shards|did not make it as a folder of shards"):
            pack(davis, tmp_path / "precious", overwrite=overwrite)
    assert (tmp_path / "precious/thesis.txt").read_text() == "words"
    (tmp_path / "empty").mkdir()
    assert pack(davis, tmp_path / "empty").digest


def test_a_failure_leaves_the_previous_shards_as_they_were(davis: DatasetFolder, tmp_path: Path) -> None:
    index = pack(davis, tmp_path / "shards")
    _corrupt(davis.root / "JPEGImages/480p/v2/00001.jpg")
    with pytest.raises(DataError, match="no shards were made"):
        pack(davis, tmp_path / "shards", overwrite=True)
    assert ShardIndex.load(tmp_path / "shards") == index
    assert verify(tmp_path / "shards") == []


def test_a_killed_pack_leaves_no_shards_and_its_remains_are_cleared(davis: DatasetFolder, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from ovos_ray.data.folders.open import open_dataset\n"
        "from ovos_ray.packing.pack import pack\n"
        "def wait(done, total):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(60)\n"
        "pack(open_dataset(sys.argv[1]), sys.argv[2], progress=wait)\n"
    )
    out = tmp_path / "shards"
    with subprocess.Popen(
        [sys.executable, "-c", script, davis.root, out], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "1"
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    assert [path.suffix for path in tmp_path.glob(".shards*")] == [".packing"]
    pack(davis, out)
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["davis", "shards"]


def test_a_pack_killed_while_it_replaces_shards_loses_neither_the_old_nor_the_new(
    davis: DatasetFolder, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    old = pack(davis, out)
    script = (
        "import os, signal, sys\n"
        "from ovos_ray.data.folders.open import open_dataset\n"
        "from ovos_ray.packing.pack import pack\n"
        "def rename(source, target, move=os.rename):\n"
        "    move(source, target)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.rename = os.renames = rename\n"
        "pack(open_dataset(sys.argv[1]), sys.argv[2], labels='all', overwrite=True)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, davis.root, out], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert pack(davis, out) == old, "the same call finds the shards that were moved aside"
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["davis", "shards"]


def test_progress_is_told_for_every_video(davis: DatasetFolder, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pack(davis, tmp_path / "shards", progress=lambda *what: told.append(what))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_shards_are_read_from_a_uri(davis: DatasetFolder, tmp_path: Path) -> None:
    index = pack(davis, tmp_path / "shards")
    uri = (tmp_path / "shards").as_uri()
    assert ShardIndex.load(uri) == index
    assert ShardReader(uri).read("v0", [3]) == ShardReader(tmp_path / "shards").read("v0", [3])
    assert verify(uri) == []


def test_reading_beyond_a_video_is_refused(davis: DatasetFolder, tmp_path: Path) -> None:
    pack(davis, tmp_path / "shards")
    with pytest.raises(DataError, match=r"frames 0 … 5, not \[6\]"):
        ShardReader(tmp_path / "shards").read("v0", [0, 6])


def test_packing_runs_ahead_by_a_few_frames_only(davis: DatasetFolder, tmp_path: Path) -> None:
    """Memory is bounded: while nothing is consumed, the source is read no further than the window."""
    taken: list[int] = []

    def numbers() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = map_in_order(pool, lambda number: (time.sleep(0.001 * (number % 3)), number)[1], numbers(), ahead=8)
        assert next(results) == 0
        assert len(taken) <= 10
        assert list(results) == list(range(1, 100)), "in order, though threads finish out of order"


def test_static_images_are_packed_as_videos_of_one_frame(tmp_path: Path) -> None:
    (tmp_path / "static/DUTS-TR").mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 20, 20)).save(tmp_path / "static/DUTS-TR/a.jpg")
    mask = Image.new("L", (WIDTH, HEIGHT))
    mask.paste(200, (10, 10, 30, 20))
    mask.save(tmp_path / "static/DUTS-TR/a.png")
    index = pack(open_dataset(tmp_path / "static", "static_images"), tmp_path / "shards", split="DUTS-TR")
    assert [video.name for video in index.videos] == ["DUTS-TR/a"]
    assert [dataclasses.astuple(box) for box in index.videos[0].objects[0]] == [(1, 10, 10, 30, 20, 200)]
    assert verify(tmp_path / "shards") == []


@pytest.mark.shared
def test_davis_mini_holds_exactly_twelve_labels(shared_root: Path, tmp_path: Path) -> None:
    source = open_dataset(shared_root / "davis-mini", "davis2016")
    index = pack(source, tmp_path / "shards", labels="first")
    cells = _cells(tmp_path / "shards")
    assert sum(isinstance(cell, bytes) and cell.startswith(PNG) for cell in cells) == 12
    frames = [cell for cell in cells if isinstance(cell, bytes) and not cell.startswith(PNG)]
    assert len(frames) == index.budget.total_frames
    assert all(cell.startswith(b"\xff\xd8") for cell in frames)
    assert sum(path.read_bytes().count(PNG) for path in (tmp_path / "shards").iterdir()) == 12
    assert [video.label_frames for video in index.videos] == [(0,)] * 12
    assert all([box.object_id for box in video.objects[0]] == [1] for video in index.videos)
    assert index.budget.percent == pytest.approx(1.5, abs=0.05)
