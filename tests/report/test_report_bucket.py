"""A study whose runs, masks and videos lie in a bucket has the pictures of the same study on a disk."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from synthetic_study import memory_run, save_mask, square, write_videos

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.errors import DataError
from ovos_ray.evaluate.infer import mask_archive
from ovos_ray.evaluate.infer.mask_archive import MaskArchives, send_masks
from ovos_ray.packing.pack import pack
from ovos_ray.report.build import build_report
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.pictures.emergence import emergence_galleries
from ovos_ray.report.pictures.pictures import Gallery
from ovos_ray.report.runs import Study
from ovos_ray.storage import Storage, filesystem_of

SEQUENCES = ("a", "b", "c", "d", "e")
BUCKET = "s3://ovos"


class Bucket:
    """A folder that answers as a bucket's file system, or not at all; it remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.away, self.asked = folder, False, list[str]()
        self.filesystem = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())

    def __getattr__(self, name: str) -> Any:
        def request(path: Any, *arguments: Any) -> Any:
            if self.away:
                self.asked.append(str(path))
                raise OSError("AWS Error NETWORK_CONNECTION: Timeout was reached")
            if name == "open_input_file":
                self.asked.append(path)
            if name == "open_output_stream":
                self.filesystem.create_dir(path.rpartition("/")[0])
            return getattr(self.filesystem, name)(path, *arguments)

        return request


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket(tmp_path / "bucket")

    def opened(location: str | Path) -> tuple[Any, str]:
        text = str(location)
        return (made, text.removeprefix(f"{BUCKET}/")) if text.startswith(BUCKET) else filesystem_of(location)

    for module in ("ovos_ray.storage", "ovos_ray.data.shards.shard_file"):
        monkeypatch.setattr(f"{module}.filesystem_of", opened)
    monkeypatch.setenv("OVOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ovos_ray.storage.PATIENCE_S", 0.0)
    return made


def study(folder: Path, place: Callable[[str], str], source: dict[str, str]) -> Study:
    """Returns a study of two strategies, whose masks lie where `place` says."""
    runs = []
    for strategy, shift, quality in (("2-step", 8, 90.0), ("T-step", 0, 20.0)):
        for sequence, t in itertools.product(SEQUENCES, range(6)):
            save_mask(folder / strategy / sequence / f"{t:05d}.png", square(t * shift))
        # e is the worst, c in the middle, a the best.
        scores = {(name, 1): (quality - number, quality - number) for number, name in enumerate(SEQUENCES)}
        params = {"method.name": "one_shot", "network.name": "xmem-tiny", "method.backward": strategy, **source}
        runs.append(memory_run(strategy, 0, scores, params=params, tags={"ovos.predictions": place(strategy)}))
    return Study("s", "1", "uri", tuple(runs))


@pytest.fixture
def studies(tmp_path: Path, bucket: Bucket) -> tuple[Study, Study]:
    """The same study on a disk and in a bucket."""
    write_videos(tmp_path / "data", SEQUENCES)
    pack(open_dataset(tmp_path / "data"), tmp_path / "bucket" / "val", labels="all", split="val")
    on_disk, there = tmp_path / "on-disk", tmp_path / "there"
    disk = study(on_disk, lambda name: str(on_disk / name), {"evaluation.root": str(tmp_path / "data")})
    other = study(there, lambda name: f"{BUCKET}/{name}/predictions", {"evaluation.shards": f"{BUCKET}/val"})
    for name, sequence in itertools.product(("2-step", "T-step"), SEQUENCES):
        send_masks(there / name, sequence, Storage(f"{BUCKET}/{name}/predictions"))
    bucket.asked.clear()
    return disk, other


def page(read: Study, out: Path, sequences: Sequence[str] = ()) -> str:
    """Returns the page of a study, as if it had been read from MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovos_ray.report.build.load_study", lambda *_: read)
        return build_report("s", "uri", out, sequences=sequences, attach=False).html.read_text()


def pictures(text: str) -> list[tuple[str, str]]:
    """Returns the text and the content of all pictures of masks on a page."""
    return re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]*)"', text)


def test_pictures_of_a_bucket_are_those_of_a_disk_and_only_what_is_shown_is_fetched(
    studies: tuple[Study, Study], bucket: Bucket, tmp_path: Path
) -> None:
    disk, there = (page(read, tmp_path / f"out-{number}", ["b", "d"]) for number, read in enumerate(studies))
    assert pictures(there) == pictures(disk)
    # Truth and two strategies: of both sequences, and of one moving; then where the first mask is copied, twice.
    kinds = ["b, as asked for"] * 3 + ["b in motion"] * 3 + ["d, as asked for"] * 3
    kinds += [f"{name}, copying the first mask" for name in "bd"]
    assert [alt.partition(":")[0] for _, alt in pictures(there)] == kinds
    assert len({content for content, _ in pictures(there)}) == len(kinds) - 3, "what is predicted well is the truth"
    fetched = [path for path in bucket.asked if path.endswith(".zip")]
    assert sorted(fetched) == [f"{name}/predictions/{it}.zip" for name in ("2-step", "T-step") for it in "bd"]
    assert {path.name for path in (tmp_path / "cache").glob("shards/*/JPEGImages/*")} == {"b", "d"}
    alone = "Of b, d alone: masks in a bucket are fetched of what is shown."
    assert (there.count(alone), disk.count(alone)) == (2, 0)
    films = [(tmp_path / f"out-{number}" / "films" / "b.mp4").read_bytes() for number in (0, 1)]
    assert films[0] == films[1]


def test_the_worst_the_middle_and_the_best_are_fetched_where_none_is_asked_for(
    studies: tuple[Study, Study], bucket: Bucket, tmp_path: Path
) -> None:
    page(studies[1], tmp_path / "out")
    assert {Path(path).stem for path in bucket.asked if path.endswith(".zip")} == {"a", "c", "e"}


def test_what_is_missing_in_a_bucket_is_named_in_its_place(
    studies: tuple[Study, Study], bucket: Bucket, tmp_path: Path
) -> None:
    (bucket.folder / "T-step/predictions/b.zip").unlink()
    (bucket.folder / "2-step/predictions/d.zip").write_bytes(b"PK no archive")
    text = page(studies[1], tmp_path / "out", ["b", "d"])
    assert f"no picture: {BUCKET}/T-step/predictions/b.zip: no such file" in text
    assert f"no picture: {BUCKET}/2-step/predictions/d.zip: damaged" in text
    still = [
        alt.replace(", as asked for", "").split(" · ")[0] for _, alt in pictures(text) if ", as asked for: " in alt
    ]
    assert still == ["b: truth", "b: 2-step", "d: truth", "d: T-step"]


def test_a_bucket_that_cannot_be_reached_is_named_and_asked_once(
    studies: tuple[Study, Study], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.away = True
    text = page(studies[1], tmp_path / "out", ["b", "d"])
    for name in "bd":
        assert f"No pictures of {name}: {BUCKET}" in text
    assert text.count("the storage cannot be reached") == 2
    assert not pictures(text)
    assert len(bucket.asked) <= 2, "by what reads beside each other"


def test_archives_of_a_stranger_that_unpack_to_too_much_are_refused(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_mask(tmp_path / "masks/a/00000.png", square(0))
    place = Storage(f"{BUCKET}/masks")
    send_masks(tmp_path / "masks", "a", place)
    assert (MaskArchives(place).mask("a", "00000") == square(0)).all()
    with pytest.raises(DataError, match=r"a\.zip: a/00001\.png cannot be read"):
        MaskArchives(place).mask("a", "00001")
    monkeypatch.setattr(mask_archive, "_MOST_BYTES", 100)
    with pytest.raises(DataError, match="more than the masks of a video take"):
        MaskArchives(place).mask("a", "00000")


def test_snapshots_in_a_bucket_show_how_masks_emerge(bucket: Bucket, tmp_path: Path) -> None:
    write_videos(tmp_path / "data", ["a"])
    params = {"evaluation.root": str(tmp_path / "data"), "evaluation.split": "val", "network.name": "xmem-tiny"}
    for step, t in itertools.product((0, 20), range(5)):
        save_mask(tmp_path / f"bucket/run/snapshots/step-{step:08d}/a/{t:05d}.png", square(t * step // 3))

    def galleries(place: str) -> tuple[Gallery, ...]:
        tags = {"ovos.snapshots": f"{place}/run/snapshots"}
        run = memory_run("2-step", 0, {("a", 1): (9.0, 9.0)}, params=params, tags=tags)
        return emergence_galleries(compare(Study("s", "1", "uri", (run,))).rows)

    disk = galleries(str(bucket.folder))
    assert [strip.label for strip in disk[0].strips] == ["after 0 steps", "after 20 steps"]
    assert disk[0].strips[0].image != disk[0].strips[1].image
    assert galleries(BUCKET) == galleries(f"file://{bucket.folder}") == disk
    bucket.away = True
    (remark,) = galleries(BUCKET)
    assert not remark.strips
    assert remark.words.startswith(f"No pictures of how masks emerge in 2-step: {BUCKET}/run/snapshots: the storage")
