"""What an evaluation compares: sequences, frames and objects of two folders, with every gap named.

Nothing is scored here, and only the masks that define the objects are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.score.read_mask import read_mask
from ovos_ray.evaluate.score.table import Protocol
from ovos_ray.io import read_json

__all__ = ["FramePair", "SequencePlan", "has_meta", "load_seen", "masks_root", "plan_sequences"]

_PARTS = ("Annotations/480p", "Annotations", "valid/Annotations", "DAVIS/Annotations/480p", "masks")


@dataclass(frozen=True)
class FramePair:
    """One frame to score: its predicted and true mask, and the objects that count in it."""

    pred: Path
    gt: Path
    ids: tuple[int, ...]


@dataclass(frozen=True)
class SequencePlan:
    """One sequence: its frames, the ids a prediction may hold, and what is known of each object."""

    name: str
    pairs: tuple[FramePair, ...]
    ids: tuple[int, ...]
    categories: dict[int, str | None]


def plan_sequences(
    predictions: Path,
    annotations: Path,
    protocol: Protocol,
    sequences: Collection[str] | None = None,
    meta: Path | None = None,
) -> tuple[list[SequencePlan], list[str]]:
    """Lists what to compare.

    Args:
        predictions: Folder with one folder of PNGs per sequence, or its parent where it is called `Annotations`.
        annotations: The same for the true masks; the dataset's own folder will do.
        protocol: The protocol.
        sequences: Names of the sequences; None: those of the smallest list in the dataset's `ImageSets` that holds all
            predicted ones, or all annotated ones where there is no such list.
        meta: youtube-vos: the split's `meta.json`; None: the one beside the masks, if there is one.

    Returns:
        The plans, sorted by name, and notes on what was left out.

    Raises:
        EvaluationError: A folder, sequence or frame is missing, or nothing is left to score.
    """
    truth, found = _root(annotations, "annotations"), _root(predictions, "predictions")
    annotated, predicted = _folders(truth), _folders(found)
    names = sorted(sequences) if sequences is not None else _expected(truth, annotated, predicted)
    _require(names, "annotated", truth, "check their names, and --annotations")
    _require(names, "predicted", found, "predict them, or name the sequences to score with --sequences")
    notes = []
    if extra := sorted(set(predicted) - set(names)):
        notes.append(f"predicted but not scored: {_some(extra)}")
    if protocol == "youtube-vos":
        videos = _meta(truth, meta)
        return [_plan_youtube(name, found / name, truth / name, videos) for name in names], notes
    return [_plan_davis(name, found / name, truth / name, protocol) for name in names], notes


_ON_A_SERVER = (
    "if the rest is kept on the benchmark's server, zip the masks with `ovos-ray submission` and enter its answer with "
    "`ovos-ray score RUN --server FILE`"
)


def load_seen(path: str | Path) -> frozenset[str]:
    """Reads the seen categories: a training set's `meta.json`, or a text file with one category a line."""
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"{path}: no such list of seen categories", "give the training set's meta.json")
    if path.suffix != ".json":
        try:
            return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except ValueError as error:
            raise EvaluationError(f"{path}: no text ({error})", "write one category a line, in UTF-8") from error
    videos = _videos(path).values()
    return frozenset(entry["category"] for v in videos for entry in v["objects"].values() if entry["category"])


def masks_root(annotations: Path) -> Path:
    """Returns the folder of a dataset that holds one folder of true masks per sequence; nothing of them is read.

    Raises:
        EvaluationError: There is none.
    """
    return _root(annotations, "annotations")


def has_meta(annotations: Path) -> bool:
    """Whether a `meta.json` lies beside true masks, as in the layout of YouTube-VOS alone.

    Raises:
        EvaluationError: There are no masks.
    """
    return any(path.is_file() for path in _beside(masks_root(annotations)))


def _beside(truth: Path) -> tuple[Path, Path]:
    return truth / "meta.json", truth.parent / "meta.json"


def _plan_davis(name: str, pred: Path, gt: Path, protocol: Protocol) -> SequencePlan:
    """First and last annotated frame dropped; the objects are those of the first, as in the official toolkit."""
    files = _masks(gt)
    if len(files) < 3:
        raise EvaluationError(
            f"{gt}: {len(files)} annotated frames; the first and last are not scored, so at least 3 are needed",
            _ON_A_SERVER
            if len(files) == 1
            else "leave the sequence out with --sequences, or annotate more of its frames",
        )
    first = read_mask(files[0])
    if protocol == "davis2016":
        ids: tuple[int, ...] = (1,)
    elif first.two_valued:
        raise EvaluationError(
            f"{files[0]}: a mask of 0 and 255, where davis2017 reads 255 as void and finds no object",
            "score single-object masks with --protocol davis2016",
        )
    else:
        ids = tuple(range(1, int(np.where(first.indices == 255, 0, first.indices).max()) + 1))
    if not ids or not first.indices.any():
        raise EvaluationError(f"{files[0]}: the first annotated frame shows no object", "leave the sequence out")
    pairs = tuple(FramePair(pred / file.name, file, ids) for file in files[1:-1])
    _require_frames(name, pred, pairs)
    return SequencePlan(name, pairs, ids, dict.fromkeys(ids))


def _plan_youtube(name: str, pred: Path, gt: Path, meta: dict[str, Any] | None) -> SequencePlan:
    """Every object counts in its annotated frames after the first, as on the server."""
    files = {file.stem: file for file in _masks(gt)}
    categories: dict[int, str | None] = {}
    frames: dict[int, list[str]] = {}
    if meta is not None:
        if name not in meta:
            raise EvaluationError(
                f"meta.json does not list the annotated video {name!r}", "use the split's own meta.json (--meta)"
            )
        for key, entry in meta[name]["objects"].items():
            frames[key] = sorted(stem for stem in entry["frames"] if stem in files)
            categories[key] = entry["category"] or None
    else:
        for stem, file in files.items():
            present = set(np.unique(read_mask(file).indices).tolist()) - {0, 255}
            for index in present | set(frames):
                frames.setdefault(index, []).append(stem)
                categories.setdefault(index)
    later = {stem: tuple(sorted(i for i, own in frames.items() if stem in own[1:])) for stem in files}
    pairs = tuple(FramePair(pred / file.name, file, later[stem]) for stem, file in files.items() if later[stem])
    if not pairs:
        raise EvaluationError(f"{gt}: no object is annotated in more than one frame", _ON_A_SERVER)
    _require_frames(name, pred, pairs)
    return SequencePlan(name, pairs, tuple(sorted(frames)), categories)


def _root(folder: Path, role: str) -> Path:
    """Finds the folder that holds one folder per sequence."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder of {role}", f"check --{role}")
    for part in _PARTS:
        if _folders(folder / part):
            return folder / part
    if folder.name == "Annotations" and (folder / "480p").is_dir():
        return folder / "480p"
    if not _folders(folder):
        loose = [path.name for path in sorted(folder.iterdir()) if path.suffix == ".png"]
        raise EvaluationError(
            f"{folder}: no folder per sequence in it" + (f", but loose masks ({_some(loose)})" if loose else ""),
            f"--{role} is the folder above the folders of the sequences",
        )
    return folder


def _expected(truth: Path, annotated: Sequence[str], predicted: Sequence[str]) -> list[str]:
    for parent in (truth.parent, truth.parent.parent):
        lists = [set(path.read_text(errors="replace").split()) for path in (parent / "ImageSets").glob("*/*.txt")]
        lists = [names for names in lists if set(predicted) <= names <= set(annotated)]
        for names in sorted(lists, key=len):
            return sorted(names)
    return sorted(annotated)


def _require(names: Iterable[str], what: str, folder: Path, remedy: str) -> None:
    if missing := [name for name in names if not (folder / name).is_dir()]:
        raise EvaluationError(
            f"{folder}: {len(missing)} sequences are not {what}: {_some(missing)}; there are {_some(_folders(folder))}",
            remedy,
        )


def _require_frames(name: str, pred: Path, pairs: Sequence[FramePair]) -> None:
    there = {path.name for path in pred.iterdir() if path.name[0] != "."}
    missing = [pair.pred.name for pair in pairs if pair.pred.name not in there]
    if missing:
        raise EvaluationError(
            f"{pred}: {len(missing)} of {len(pairs)} masks of {name!r} are missing: {_some(missing)}; "
            f"the folder has {_some(sorted(there))}",
            f"they are one folder further down: --predictions {pred}"
            if (pred / name).is_dir()
            else "predictions are PNG files named as their frames, one for every annotated frame",
        )


def _meta(truth: Path, given: Path | None) -> dict[str, Any] | None:
    path = given or next((path for path in _beside(truth) if path.is_file()), None)
    return None if path is None else _videos(path)


def _videos(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such meta.json", "give the file that came with the split")
    try:
        videos: dict[str, Any] = read_json(path)["videos"]
        for video in videos.values():
            for entry in video["objects"].values():
                frames = entry.setdefault("frames", [])
                if not all(isinstance(text, str) for text in (*frames, entry.setdefault("category", ""))):
                    raise TypeError("names of frames and categories must be texts")
            video["objects"] = {int(key): entry for key, entry in video["objects"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path}: not a YouTube-VOS meta.json ({type(error).__name__}: {error})", "download it again"
        ) from error
    return videos


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _masks(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix == ".png" and path.name[0] != ".")
    if not files:
        raise EvaluationError(f"{folder}: no PNG masks in it", "annotations are PNG files, one per annotated frame")
    return files


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" … ({len(names)} in all)" if len(names) > 4 else "") or "nothing"
