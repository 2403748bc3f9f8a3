"""Predict a split and score it: what validation, the end of a run, and `ovos-ray predict --evaluate` share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.distributed

from ovos_ray.data.layout import open_dataset
from ovos_ray.evaluate.prediction import predict_dataset
from ovos_ray.evaluate.scoring import evaluate_folders
from ovos_ray.evaluate.settings import InferenceSettings
from ovos_ray.evaluate.table import ObjectScore, Protocol, ScoreTable
from ovos_ray.io import Storage
from ovos_ray.networks.base import VOSNetwork

__all__ = ["evaluate_network"]

_PROTOCOLS: dict[str, Protocol] = {"davis2016": "davis2016", "youtube-vos": "youtube-vos"}


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
) -> ScoreTable:
    """Predicts the videos of a split and scores them; the ranks share the videos and get the same table.

    Args:
        network: On its device; its training mode is restored afterwards.
        root: The dataset's folder.
        layout: Its layout.
        split: Its split.
        protocol: How it is scored; None: as its layout suggests.
        shortest_side: Size frames are predicted at; None: the published one. Other settings are the network's own.
        num_videos: Only the first so many videos.
        out: Where the predicted masks are kept; None: nowhere.
        rank: Which of the ranks this is.
        world_size: How many ranks call this together.

    Raises:
        DataError: The dataset cannot be read.
        EvaluationError: It cannot be scored.
    """
    folder = open_dataset(root, layout=layout)
    changes = {} if shortest_side is None else {"shortest_side": shortest_side}
    settings = InferenceSettings.of(network, **changes)
    chosen = protocol or _PROTOCOLS.get(folder.description.layout, "davis2017")
    names = folder.video_names(split)[:num_videos]
    own = names[rank::world_size]
    training = network.training
    rows: tuple[ObjectScore, ...] = ()
    notes: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="ovos-predictions-") as scratch:
        predictions = Path(out.path()) if out is not None and out.local else Path(scratch)
        if own:
            network.eval()
            predict_dataset(network, folder, split, predictions, videos=own, settings=settings, overwrite=True)
            network.train(training)
            table = evaluate_folders(predictions, folder.root, chosen, sequences=own, num_processes=1)
            rows, notes = table.rows, table.notes
        if out is not None and not out.local:
            for path in sorted(predictions.rglob("*.png")):
                out.write(path.read_bytes(), *path.relative_to(predictions).parts)
    if world_size > 1:
        gathered: list[tuple[ObjectScore, ...]] = [()] * world_size
        torch.distributed.all_gather_object(gathered, rows)
        rows = tuple(sorted((row for part in gathered for row in part), key=lambda row: (row.sequence, row.object_id)))
    return ScoreTable(chosen, rows, notes)
