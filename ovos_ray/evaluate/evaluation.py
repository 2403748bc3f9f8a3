"""Predict a split and score it: what validation, the end of a run, and `ovos-ray predict --evaluate` share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
import torch.distributed

from ovos_ray.config import EvaluationConfig
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.errors import ConfigError, DataError, EvaluationError
from ovos_ray.evaluate.infer.mask_archive import send_masks
from ovos_ray.evaluate.infer.prediction import VideoReport, predict_dataset
from ovos_ray.evaluate.infer.settings import InferenceSettings
from ovos_ray.evaluate.score.scoring import ScoredOrProblem, ScoredVideos, score_videos, table_of
from ovos_ray.evaluate.score.table import Protocol, ScoreTable, protocol_for
from ovos_ray.evaluate.score.truth import require_truth, truth_of
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.storage import Storage

__all__ = ["Benchmark", "benchmarks", "check_benchmarks", "evaluate_network", "open_scored"]

_UPLOADS = 4  # at a time; one takes seven requests of some 20 ms each


@dataclass(frozen=True)
class Benchmark:
    """A split that resulting weights are scored on.

    Attributes:
        name: Empty for the main one, whose scores are called `jf`, `j`, `f`; those of others are `NAME/jf`.
        root: The dataset's folder, or shards of the split.
        layout: Its layout.
        split: Its split.
        protocol: How it is scored; None: as its layout suggests.
    """

    name: str
    root: str
    layout: str
    split: str
    protocol: Protocol | None

    @property
    def suffix(self) -> str:
        """Ends the names of its files: `scores.csv`, `scores-davis2016.csv`."""
        return f"-{self.name}" if self.name else ""

    def metric(self, score: str) -> str:
        """Returns what one of its scores is called."""
        return f"{self.name}/{score}" if self.name else score


def benchmarks(config: EvaluationConfig) -> Iterator[Benchmark]:
    """Yields the splits a configuration scores: the main one first, if there is one."""
    if config.source is not None:
        protocol = None if config.protocol == "auto" else config.protocol
        yield Benchmark("", config.source, config.layout, config.split, protocol)
    for one in config.also:
        yield Benchmark(one.name, one.root, "auto", one.split, None)


def check_benchmarks(config: EvaluationConfig) -> None:
    """Opens every split that is to be scored, so that a wrong path is found before training and not after it.

    Raises:
        DataError: A dataset or split cannot be opened.
        ConfigError: Two have the same name, or one has the name of a protocol that it is not scored with.
    """
    seen = set()
    for benchmark in benchmarks(config):
        if benchmark.name in seen:
            raise ConfigError(f"evaluation.also names {benchmark.name!r} twice", "give each dataset a name of its own")
        seen.add(benchmark.name)
        try:
            folder = open_scored(benchmark.root, benchmark.layout, benchmark.split, benchmark.protocol)
        except DataError as error:
            key = "evaluation.also" if benchmark.name else "evaluation.root" if config.root else "evaluation.shards"
            split = f"{key}=NAME=FOLDER:SPLIT" if benchmark.name else "evaluation.split=SPLIT"
            remedy = error.remedy or f"correct {key}, choose another split ({split}), or leave it out"
            raise DataError(f"{key}: {error.message}", remedy) from error
        protocol = protocol_for(folder.description.layout)
        if benchmark.name in get_args(Protocol) and benchmark.name != protocol:
            raise ConfigError(
                f"evaluation.also={benchmark.name}={benchmark.root}: that dataset is scored as {protocol}, and its "
                f"scores would stand under the name of {benchmark.name}",
                f"write {protocol}={benchmark.root}, or give the folder of {benchmark.name}",
            )


def open_scored(
    root: str, layout: str, split: str, protocol: Protocol | None = None, num_videos: int | None = None
) -> DatasetFolder:
    """Opens a dataset folder, or shards, of which a split is to be scored; no mask is read beyond its header.

    Raises:
        DataError: It cannot be opened, has no such split, or holds no labels to score against.
        StorageError: The bucket cannot be reached.
    """
    folder = open_dataset(root, layout=layout)
    folder.video_names(split)
    require_truth(folder, split, protocol, num_videos)
    return folder


def evaluate_network(
    network: VOSNetwork,
    *,
    root: str,
    layout: str = "auto",
    split: str = "val",
    protocol: Protocol | None = None,
    shortest_side: int | None = None,
    num_videos: int | None = None,
    out: Storage | None = None,
    rank: int = 0,
    world_size: int = 1,
    scorers: Executor | None = None,
) -> ScoreTable:
    """Predicts the videos of a split and scores them; the ranks share the videos and get the same table.

    Args:
        network: On its device; its training mode is restored afterwards.
        root: The dataset's folder, or shards of the split.
        layout: Its layout.
        split: Its split.
        protocol: How it is scored; None: as its layout suggests.
        shortest_side: Size frames are predicted at; None: the published one. Other settings are the network's own.
        num_videos: Only the first so many videos.
        out: Where the predicted masks are kept, in a bucket as one ZIP a video; None: nowhere.
        rank: Which of the ranks this is.
        world_size: How many ranks call this together.
        scorers: Score each video while the next one is predicted, so that a GPU waits for the last one alone; None:
            this process scores all of them afterwards.

    Raises:
        DataError: The dataset cannot be read.
        EvaluationError: It cannot be scored.
    """
    folder = open_scored(root, layout, split, protocol, num_videos)
    changes = {} if shortest_side is None else {"shortest_side": shortest_side}
    settings = InferenceSettings.of(network, **changes)
    chosen = protocol or protocol_for(folder.description.layout)
    names = folder.video_names(split)[:num_videos]
    own = names[rank::world_size]
    training = network.training
    scored: list[ScoredOrProblem | Future[ScoredOrProblem]] = []
    with _scratch("predictions") as scratch, _scratch("truth") as copies, _sent_to(out, scratch) as send:
        predictions = Path(out.path()) if out is not None and out.local else scratch

        def score(videos: Sequence[str]) -> ScoredOrProblem | Future[ScoredOrProblem]:
            try:
                truth = truth_of(folder, split, videos, copies)
            except EvaluationError as error:
                return error
            if scorers is None:
                return score_videos(predictions, truth, chosen, videos)
            return scorers.submit(score_videos, predictions, truth, chosen, videos)

        def predicted(video: VideoReport) -> None:
            send(video)
            if scorers is not None:
                scored.append(score([video.name]))

        if own:
            network.eval()
            predict_dataset(
                network, folder, split, predictions, videos=own, settings=settings, overwrite=True, progress=predicted
            )
            network.train(training)
            if scorers is None:
                scored.append(score(own))
        found = [one.result() if isinstance(one, Future) else one for one in scored]
    if world_size > 1:
        # Also what went wrong is shared: a rank that left alone would leave the others waiting for it.
        gathered: list[list[ScoredOrProblem]] = [[]] * world_size
        torch.distributed.all_gather_object(gathered, found)
        found = [one for part in gathered for one in part]
    parts: list[ScoredVideos] = []
    for one in found:
        if isinstance(one, EvaluationError):
            raise one
        parts.append(one)
    return table_of(chosen, parts)


@contextmanager
def _scratch(what: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"ovos-{what}-") as folder:
        yield Path(folder)


@contextmanager
def _sent_to(out: Storage | None, predictions: Path) -> Iterator[Callable[[VideoReport], None]]:
    """Yields what sends a video's masks to a bucket while the next one is predicted; at the end all have arrived."""
    if out is None or out.local:
        yield lambda _: None
        return
    bucket, sent = out, list[Future[None]]()
    with ThreadPoolExecutor(_UPLOADS) as pool:
        yield lambda video: sent.append(pool.submit(send_masks, predictions, video.name, bucket))
        for one in sent:
            one.result()
