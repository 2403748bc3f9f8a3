"""Zips for the benchmark servers, checked against every rule before they get their name.

Source: the rules of the YouTube-VOS server (CodaLab) and of the DAVIS test-dev server. DAVIS wants the folders of the
videos at the root of the zip, YouTube-VOS wants them in a folder `Annotations`; both want palette PNGs with the given
object ids at the original size, for exactly the frames they list.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from ovos_ray.data.folders.base import DatasetFolder
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.video import Video
from ovos_ray.data.masks import IMAGE_FORMATS, image_size
from ovos_ray.errors import ConfigError, EvaluationError
from ovos_ray.io import atomic_path

__all__ = ["BENCHMARKS", "ServerBenchmark", "check_submission", "open_benchmark", "refuse", "write_submission"]

_SHOWN = 10
_OVERHEAD = 100_000  # bytes beside the pixels: a palette, metadata
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ServerBenchmark:
    """What a benchmark is computed on: a split of a dataset in some layout, with a known number of videos."""

    layout: str
    split: str
    num_videos: int


BENCHMARKS: dict[str, ServerBenchmark] = {
    "davis2016": ServerBenchmark("davis2016", "val", 20),
    "davis2017": ServerBenchmark("davis2017", "val", 30),
    "davis2017-test-dev": ServerBenchmark("davis2017", "test-dev", 30),
    "davis2017-test-challenge": ServerBenchmark("davis2017", "test-challenge", 30),
    "youtube-vos2018": ServerBenchmark("youtube-vos", "valid", 474),
    "youtube-vos2019": ServerBenchmark("youtube-vos", "valid", 507),
}
"""The benchmarks by name."""


def open_benchmark(name: str, root: str | os.PathLike[str]) -> tuple[DatasetFolder, str]:
    """Opens the dataset of a benchmark.

    Args:
        name: One of `BENCHMARKS`.
        root: The dataset's folder.

    Returns:
        The dataset, and the name of the split.

    Raises:
        ConfigError: There is no such benchmark.
        DataError: There is no such dataset, or it lacks the split.
        EvaluationError: The split has another number of videos than the benchmark.
    """
    benchmark = BENCHMARKS.get(name)
    if benchmark is None:
        raise ConfigError(f"no benchmark {name!r}", f"choose one of {', '.join(BENCHMARKS)}")
    folder = open_dataset(Path(root), layout=benchmark.layout)
    count = len(folder.video_names(benchmark.split))
    if count != benchmark.num_videos:
        raise EvaluationError(
            f"{folder.root}: {count} videos in split {benchmark.split!r}, {name} has {benchmark.num_videos}",
            "give the benchmark's own dataset, of its year and complete, with --root",
        )
    return folder, benchmark.split


def write_submission(
    predictions: str | os.PathLike[str], folder: DatasetFolder, split: str, out: str | os.PathLike[str]
) -> int:
    """Writes the zip of a split's predictions; the same predictions give the same bytes.

    Args:
        predictions: Masks in DAVIS results layout.
        folder: The dataset; its layout decides the server.
        split: The split.
        out: The zip file; it appears only if every rule is kept.

    Returns:
        The number of masks in it.

    Raises:
        EvaluationError: A rule is broken; lists what is wrong.
    """
    names = [(Path(predictions) / relative, archived) for relative, archived in _files(folder, split)]
    with atomic_path(out) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for path, archived in names:
                if path.is_file():
                    archive.writestr(zipfile.ZipInfo(archived, _EPOCH), path.read_bytes())
        problems = check_submission(temporary, folder, split)
        if problems:
            refuse(predictions, problems)
    return len(names)


def refuse(what: str | os.PathLike[str], problems: Sequence[str]) -> NoReturn:
    """Raises an error that lists what is wrong.

    Raises:
        EvaluationError: Always.
    """
    shown = [*problems[:_SHOWN], *[f"… and {len(problems) - _SHOWN} more"] * (len(problems) > _SHOWN)]
    raise EvaluationError(
        f"{os.fspath(what)}: not fit for submission:\n" + "\n".join(f"  {problem}" for problem in shown),
        "predict the split again with `ovos-ray predict`, into a fresh folder",
    )


def check_submission(path: str | os.PathLike[str], folder: DatasetFolder, split: str) -> list[str]:
    """Returns every broken rule of a zip, whoever wrote it; an empty list if there is none."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        return [f"{path}: no zip file ({error})"]
    with archive:
        found = [info.filename for info in archive.infolist() if not info.is_dir()]
        expected = [archived for _, archived in _files(folder, split)]
        there, wanted = Counter(found), set(expected)
        problems = [f"{name}: missing" for name in expected if name not in there]
        problems += [f"{name}: not asked for" for name in there if name not in wanted]
        problems += [f"{name}: twice in the zip" for name, count in there.items() if count > 1]
        for video in folder.videos(split):
            size, ids = _facts(video)
            for name in _saved(video):
                archived = _prefix(folder) + f"{video.name}/{name}.png"
                if archived in there:
                    problems += [f"{archived}: {problem}" for problem in _mask_problems(archive, archived, size, ids)]
    return problems


def _mask_problems(archive: zipfile.ZipFile, name: str, size: tuple[int, int], ids: set[int]) -> Iterator[str]:
    stored = archive.getinfo(name).file_size
    if stored > 2 * size[0] * size[1] + _OVERHEAD:
        yield f"{stored:,} bytes, more than a mask of {size[1]} x {size[0]} pixels has"
        return
    try:
        image = Image.open(io.BytesIO(archive.read(name)), formats=IMAGE_FORMATS)
        if image.size != size[::-1]:
            yield f"{image.width} x {image.height} pixels, the frame has {size[1]} x {size[0]}"
            return
        image.load()
    except (
        OSError,
        SyntaxError,
        ValueError,
        NotImplementedError,
        zlib.error,
        Image.DecompressionBombError,
        zipfile.BadZipFile,
    ) as error:
        yield f"damaged ({error})"
        return
    if image.format != "PNG" or image.mode != "P":
        yield f"{image.format} of mode {image.mode}, not a palette PNG"
        return
    if unknown := sorted(set(np.unique(np.asarray(image)).tolist()) - ids - {0}):
        yield f"object ids {unknown}, the video has {sorted(ids)}"


def _facts(video: Video) -> tuple[tuple[int, int], set[int]]:
    """Returns size (height, width) and object ids of a video."""
    ids = {int(index) for mask in video.references().values() for index in np.unique(mask) if index}
    return (image_size(video.frames[0]) if video.frames else video.size), ids


def _files(folder: DatasetFolder, split: str) -> list[tuple[str, str]]:
    """Returns (path in the predictions, path in the zip) of all masks a server wants."""
    prefix = _prefix(folder)
    relative = [f"{video.name}/{name}.png" for video in folder.videos(split) for name in _saved(video)]
    return [(name, prefix + name) for name in relative]


def _saved(video: Video) -> list[str]:
    return [name for name in video.frame_names if video.is_saved(name)]


def _prefix(folder: DatasetFolder) -> str:
    return "Annotations/" if folder.description.layout == "youtube-vos" else ""
