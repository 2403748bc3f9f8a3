"""J and F of frames, in a pool of processes.

The helpers import neither torch nor Ray, so that this works from any program and starts at once.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ovos_ray.arrays import FloatArray
from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.metrics import binary_scores, object_scores
from ovos_ray.evaluate.score.pairs import FramePair, SequencePlan
from ovos_ray.evaluate.score.read_mask import StoredMask, read_mask
from ovos_ray.evaluate.score.table import Protocol
from ovos_ray.paths import no_imports_from_current_folder

__all__ = ["Chunk", "ChunkScores", "chunks_of", "score_chunks"]

# Below so many frames per process, starting it costs more than it saves.
_FRAMES_PER_PROCESS = 64
_CHUNK = 8
# Loaded, they mean threads of their own. NumPy and OpenCV also have some, but no work for them here.
_THREADED = frozenset({"torch", "ray", "av", "pyarrow", "mlflow", "google.protobuf"})


ChunkScores: TypeAlias = list[FloatArray]
"""(K, 2) scores of each frame of a chunk."""


@dataclass(frozen=True)
class Chunk:
    """Some frames of a sequence and all its ids, small enough to balance the load and to travel."""

    sequence: str
    ids: tuple[int, ...]
    pairs: tuple[FramePair, ...]


def chunks_of(plans: list[SequencePlan]) -> list[Chunk]:
    """Cuts sequences into chunks, in order."""
    starts = ((plan, start) for plan in plans for start in range(0, len(plan.pairs), _CHUNK))
    return [Chunk(plan.name, plan.ids, plan.pairs[start : start + _CHUNK]) for plan, start in starts]


def score_chunks(
    chunks: list[Chunk],
    protocol: Protocol,
    num_processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ChunkScores]:
    """Scores chunks: this process from the back, helpers from the front, so that nobody waits for their start.

    Args:
        chunks: The chunks.
        protocol: The protocol.
        num_processes: None: the CPUs there are, fewer for few frames. 1: in this process.
        progress: Called with (frames done, frames in all).

    Returns:
        The scores of each chunk, in their order.

    Raises:
        EvaluationError: A mask is damaged, of the wrong size, or no mask of object indices.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = sum(len(chunk.pairs) for chunk in chunks)
    processes = num_processes or max(1, min(available, total // _FRAMES_PER_PROCESS))
    with ExitStack() as stack:
        futures: list[Future[ChunkScores]] = [Future() for _ in chunks]
        if processes > 1:
            pool = ProcessPoolExecutor(processes - 1, mp_context=_context())
            stack.callback(pool.shutdown, cancel_futures=True)
            with no_imports_from_current_folder(), warnings.catch_warnings():
                # Python warns of any threads when it copies itself; `_context` knows which matter.
                warnings.simplefilter("ignore", DeprecationWarning)
                futures = [pool.submit(_score, chunk, protocol) for chunk in chunks]
        own: list[ChunkScores] = []
        # A helper's chunk cannot be cancelled any more; then those before it are taken or done, too.
        while len(own) < len(chunks) and futures[-1 - len(own)].cancel():
            own.append(_score(chunks[-1 - len(own)], protocol))
            if progress is not None:
                progress(sum(len(c.pairs) for c, f in zip(chunks, futures, strict=True) if f.done()), total)
        others = [future.result() for future in futures[: len(chunks) - len(own)]]
    if progress is not None:
        progress(total, total)
    return others + own[::-1]


def _context() -> multiprocessing.context.BaseContext:
    """Returns how helpers start: as copies of this process where that is safe, else from a clean one.

    It is safe on Linux while there is one Python thread and no library whose own threads may hold a lock.
    """
    methods = multiprocessing.get_all_start_methods()
    alone = threading.active_count() == 1 and _THREADED.isdisjoint(sys.modules)
    if sys.platform == "linux" and alone:
        return multiprocessing.get_context("fork")
    if "forkserver" not in methods:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context


def _keep_freed_memory() -> None:
    """Makes glibc keep what is freed: having seen a large block freed, it no longer returns smaller ones at once.

    Otherwise every frame's arrays are new pages, whose first touch costs as much as scoring them.
    """
    np.empty(16 * 2**20, np.uint8)


def _score(chunk: Chunk, protocol: Protocol) -> ChunkScores:
    _keep_freed_memory()
    scores = []
    for pair in chunk.pairs:
        pred, gt = read_mask(pair.pred), read_mask(pair.gt)
        if pred.indices.shape != gt.indices.shape:
            size, expected = ("{1} x {0}".format(*mask.indices.shape) for mask in (pred, gt))
            raise EvaluationError(
                f"{pair.pred}: {size} pixels, but the annotation {pair.gt} has {expected}",
                "write masks at the size of the annotations (nearest neighbour, if they must be scaled)",
            )
        if protocol == "davis2016":
            _refuse_smoothed(pred, pair.pred)
            scores.append(np.array([binary_scores(pred.indices > 0, gt.indices > 0)]))
        else:
            _refuse_unknown_ids(pred, pair.pred, chunk)
            scores.append(object_scores(pred.indices, gt.indices, pair.ids))
    return scores


def _refuse_smoothed(mask: StoredMask, path: Path) -> None:
    if mask.palette or mask.indices.max() < 255 or mask.two_valued:
        return
    count = len(np.unique(mask.indices))
    raise EvaluationError(
        f"{path}: {count} grey values up to 255, expected 0 and 255 or object indices: the mask is anti-aliased",
        "threshold it, and scale masks with nearest neighbour only",
    )


def _refuse_unknown_ids(mask: StoredMask, path: Path, chunk: Chunk) -> None:
    if mask.indices.max() <= chunk.ids[-1] and len(chunk.ids) == chunk.ids[-1]:
        return
    unknown = sorted(set(np.unique(mask.indices).tolist()) - {0, *chunk.ids})
    if not unknown:
        return
    if mask.two_valued:
        remedy = "0/255 masks of a single object are scored with --protocol davis2016"
    elif not mask.palette and len(unknown) > 8:
        remedy = (
            "so many grey values mean anti-aliasing or JPEG: write object indices, scaled by nearest neighbour only"
        )
    else:
        remedy = "predict only the objects of the given masks, with their ids"
    shown = ", ".join(map(str, unknown[:8])) + (" …" if len(unknown) > 8 else "")
    raise EvaluationError(
        f"{path}: object ids {shown} that {chunk.sequence!r} does not have; its objects are "
        + ", ".join(map(str, chunk.ids)),
        remedy,
    )
