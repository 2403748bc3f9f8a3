"""`pack` and `verify`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, cast

from ovos_ray.cli.console import console
from ovos_ray.cli.progress import progress_bar
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.shards.pack import pack
from ovos_ray.data.shards.verify import verify
from ovos_ray.errors import ConfigError

__all__ = ["pack_dataset", "verify_shards"]


def pack_dataset(
    dataset: str,
    root: Path,
    out: Path,
    *,
    split: str,
    labels: str,
    layout: str,
    shortest_side: int | None,
    label_frame: str,
    exclude: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Packs a dataset and prints its label budget.

    Raises:
        DataError: The dataset cannot be packed; nothing is left behind.
    """
    if labels not in ("first", "all"):
        raise ConfigError(
            f"--labels {labels!r} is neither 'first' nor 'all'",
            "--labels first for one-shot training, --labels all for fully supervised training",
        )
    if label_frame != "first" and not label_frame.isdigit():
        raise ConfigError(
            f"--label-frame {label_frame!r} is neither 'first' nor a frame index",
            "--label-frame first, or the index of a labelled frame from 0, such as --label-frame 20",
        )
    source = open_dataset(root, dataset, layout)
    began = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task(f"packing {source.description.name} {split}", total=None)
        index = pack(
            source,
            out,
            labels=cast(Literal["first", "all"], labels),
            split=split,
            shortest_side=shortest_side,
            label_frame="first" if label_frame == "first" else int(label_frame),
            exclude=exclude,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    frames = sum(video.num_frames for video in index.videos)
    console.print(f"{out}: {len(index.videos)} videos, {frames} frames, in {time.perf_counter() - began:.1f} s")
    console.print(f"label budget: {index.budget}")
    if index.num_reencoded:
        console.print(f"{index.num_reencoded} frames were re-encoded as JPEG of quality 95")


def verify_shards(shards: Path) -> bool:
    """Checks every row; prints what is wrong where, and returns whether nothing is."""
    problems = verify(shards)
    for problem in problems:
        console.print(str(problem), highlight=False, soft_wrap=True)
    console.print(f"{shards}: {len(problems)} problem(s)" if problems else f"{shards}: every row is good")
    return not problems
