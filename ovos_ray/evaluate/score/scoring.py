"""Scores folders of predicted masks against folders of annotations."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ovos_ray.arrays import FloatArray
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.metrics import statistics
from ovos_ray.evaluate.score.frame_scores import chunks_of, score_chunks
from ovos_ray.evaluate.score.pairs import SequencePlan, load_seen, plan_sequences
from ovos_ray.evaluate.score.table import ObjectScore, Protocol, ScoreTable

__all__ = ["ScoredOrProblem", "ScoredVideos", "evaluate_folders", "score_videos", "table_of"]


@dataclass(frozen=True)
class ScoredVideos:
    """Some videos' part of a table.

    Attributes:
        rows: One per object.
        num_unscored: Objects without a frame after their first.
    """

    rows: tuple[ObjectScore, ...]
    num_unscored: int = 0


ScoredOrProblem: TypeAlias = ScoredVideos | EvaluationError
"""The scores of some videos, or why they could not be scored: a value, which other processes can be told."""


def evaluate_folders(
    predictions: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    protocol: Protocol,
    *,
    sequences: Collection[str] | None = None,
    seen: Collection[str] | str | os.PathLike[str] | None = None,
    meta: str | os.PathLike[str] | None = None,
    num_processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreTable:
    """Scores predicted masks.

    Args:
        predictions: One folder of PNGs per sequence, named as the frames.
        annotations: The same for the true masks (or the dataset's own folder); they may be sparse in time.
        protocol: `davis2016` (all objects merged), `davis2017` (each object of the first mask; both without first and
            last annotated frame) or `youtube-vos` (each object after its first frame; `meta.json` beside the masks).
        sequences: Names of the sequences to score; see `plan_sequences` for the default.
        seen: youtube-vos: the categories of the training set, or a file for `load_seen`.
        meta: youtube-vos: the split's `meta.json`; None: the one beside the masks.
        num_processes: None: the CPUs there are, fewer for few frames. 1: in this process.
        progress: Called with (frames done, frames in all).

    Raises:
        EvaluationError: Something is missing, misnamed, of the wrong size, or no mask of object indices.
    """
    plans, notes = plan_sequences(
        Path(predictions), Path(annotations), protocol, sequences, None if meta is None else Path(meta)
    )
    if seen is not None and isinstance(seen, str | os.PathLike):
        seen = load_seen(Path(seen))
    found = _scored(plans, protocol, seen, num_processes, progress)
    return table_of(protocol, [found], notes, seen_is_known=seen is not None)


def score_videos(predictions: Path, annotations: Path, protocol: Protocol, videos: Collection[str]) -> ScoredOrProblem:
    """Scores some of a folder's videos in this process, which may be another one than that which predicted them.

    Args:
        predictions: See `evaluate_folders`.
        annotations: The same.
        protocol: The same.
        videos: Their names.
    """
    try:
        plans, _ = plan_sequences(predictions, annotations, protocol, videos)
        return _scored(plans, protocol, None, 1, None)
    except EvaluationError as error:
        return error


def table_of(
    protocol: Protocol, parts: Iterable[ScoredVideos], notes: Iterable[str] = (), *, seen_is_known: bool = False
) -> ScoreTable:
    """Puts a table together from parts, and says what is missing from it.

    Args:
        protocol: They were scored under.
        parts: Of different videos, in any order.
        notes: What else a reader should know.
        seen_is_known: youtube-vos: whether the categories of the training set were.
    """
    parts = list(parts)
    rows = tuple(sorted((r for part in parts for r in part.rows), key=lambda row: (row.sequence, row.object_id)))
    notes = [*notes]
    if left_out := sum(part.num_unscored for part in parts):
        notes.append(f"{left_out} objects have no frame after their first and were not scored")
    if protocol == "youtube-vos":
        notes += _notes_on_categories(rows, seen_is_known)
    return ScoreTable(protocol, rows, tuple(notes))


def _scored(
    plans: list[SequencePlan],
    protocol: Protocol,
    seen: Collection[str] | None,
    num_processes: int | None,
    progress: Callable[[int, int], None] | None,
) -> ScoredVideos:
    chunks = chunks_of(plans)
    values: dict[tuple[str, int], list[FloatArray]] = {}
    for chunk, scores in zip(chunks, score_chunks(chunks, protocol, num_processes, progress), strict=True):
        for pair, frame in zip(chunk.pairs, scores, strict=True):
            for index, score in zip(pair.ids, frame, strict=True):
                values.setdefault((chunk.sequence, index), []).append(score)
    rows = tuple(
        _row(plan, index, values, seen) for plan in plans for index in plan.ids if (plan.name, index) in values
    )
    return ScoredVideos(rows, sum(len(plan.ids) for plan in plans) - len(rows))


def _notes_on_categories(rows: Collection[ObjectScore], seen_is_known: bool) -> list[str]:
    """Says why G is not there, or does not cover all objects."""
    if not seen_is_known:
        return ["G needs seen and unseen categories: give `ovos-ray evaluate` the training set's meta.json with --seen"]
    notes = []
    if unknown := sum(row.category is None for row in rows):
        notes.append(f"{unknown} of {len(rows)} objects have no category in meta.json, and are neither seen nor unseen")
    if {True, False} - {row.seen for row in rows}:
        notes.append("G is the mean over seen and unseen categories, and there are not both")
    return notes


def _row(
    plan: SequencePlan,
    index: int,
    values: dict[tuple[str, int], list[FloatArray]],
    seen: Collection[str] | None,
) -> ObjectScore:
    over_time = np.stack(values[plan.name, index])
    j, f = (statistics(column).percent for column in over_time.T)
    category = plan.categories[index]
    return ObjectScore(
        sequence=plan.name,
        object_id=index,
        num_frames=len(over_time),
        j=j,
        f=f,
        category=category,
        seen=None if seen is None or category is None else category in seen,
    )
