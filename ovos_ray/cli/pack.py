"""`pack`: a dataset folder becomes shards."""

from __future__ import annotations

import dataclasses
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovos_ray.cli.console import console, counted, progress_bar
from ovos_ray.cli.options import LAYOUTS, WaitForNodes
from ovos_ray.errors import ConfigError
from ovos_ray.io import read_json

if TYPE_CHECKING:
    from ovos_ray.packing.label_choice import Labels

__all__ = ["pack"]

_CLUSTER_THREADS = 2  # of a task with one CPU: one reads while another decodes
EXAMPLE = "ovos-ray pack davis2017 --root DAVIS/2017 --out shards/davis --labels first"


def pack(
    dataset: Annotated[
        str,
        typer.Argument(help="A dataset of `ovos-ray ls`, a layout, such as folder, or a description, such as my.py."),
    ],
    root: Annotated[Path, typer.Option(help="The dataset's folder.")],
    out: Annotated[
        Path, typer.Option(help="Where the shards go, a folder or s3://…; must not exist, or hold the same dataset.")
    ],
    split: Annotated[str, typer.Option(help="Which split to pack.")] = "train",
    labels: Annotated[
        str,
        typer.Option(
            help="`first`: one label per video and no other annotation. `all`. `4`: four per video, "
            "spread evenly. `0,20`: these frames. FILE.json: {video: [frames]}."
        ),
    ] = "first",
    layout: Annotated[str, typer.Option(help=f"Overrides the description's layout: {LAYOUTS}.")] = "auto",
    colours: Annotated[
        Path | None, typer.Option(help="Masks are painted: a table of lines NAME:R,G,B, such as CVAT's labelmap.txt.")
    ] = None,
    shortest_side: Annotated[int | None, typer.Option(help="Re-encode larger frames to this size.")] = None,
    label_frame: Annotated[str, typer.Option(help="`first`, or the index of the frame to label.")] = "first",
    exclude: Annotated[list[str] | None, typer.Option(help="A video to leave out; may be repeated.")] = None,
    num_workers: Annotated[
        int,
        typer.Option(min=1, help="Shard files made at a time, by processes, or tasks of the cluster of RAY_ADDRESS."),
    ] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace another dataset at --out.")] = False,
    wait_for_nodes: WaitForNodes = 15.0,
) -> None:
    """Packs a dataset folder into Parquet shards with an index. After a kill, the same command goes on."""
    from ovos_ray.data.folders.drawn_masks import read_colours
    from ovos_ray.data.folders.open import open_dataset
    from ovos_ray.packing.pack import pack as pack_folder
    from ovos_ray.storage import location_of

    chosen = _labels(labels)
    if label_frame != "first" and not label_frame.isdecimal():
        raise ConfigError(
            f"--label-frame {label_frame!r} is neither 'first' nor a frame index",
            "--label-frame first, or the index of a labelled frame from 0, such as --label-frame 20",
        )
    source = open_dataset(root, dataset, layout)
    if colours is not None:
        table = read_colours(colours)
        source = type(source)(source.root, dataclasses.replace(source.description, colours=table))
    runner = None
    if num_workers > 1 and "RAY_ADDRESS" in os.environ:
        from ovos_ray.on_ray.packing import on_cluster
        from ovos_ray.on_ray.room import patience_s

        runner = partial(on_cluster, num_workers=num_workers, wait_s=patience_s(wait_for_nodes), say=console.print)
    began = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task(f"packing {source.description.name} {split}", total=None)
        index = pack_folder(
            source,
            location_of(out),
            labels=chosen,
            split=split,
            shortest_side=shortest_side,
            label_frame="first" if label_frame == "first" else int(label_frame),
            exclude=tuple(exclude or ()),
            overwrite=overwrite,
            num_workers=num_workers,
            runner=runner,
            num_threads=_CLUSTER_THREADS if runner else None,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    frames = sum(video.num_frames for video in index.videos)
    console.print(
        f"{location_of(out)}: {counted(len(index.videos), 'video')}, {counted(frames, 'frame')}, "
        f"in {time.perf_counter() - began:.1f} s"
    )
    console.print(f"label budget: {index.budget}")
    if index.num_reencoded:
        console.print(f"{index.num_reencoded} frames were re-encoded as JPEG of quality 95")


def _labels(text: str) -> Labels:
    """Returns what `--labels` asks for; a file names frames for each video."""
    if text in ("first", "all"):
        return "all" if text == "all" else "first"
    numbers = text.split(",")
    if all(number.strip().isdecimal() for number in numbers):
        return int(text) if len(numbers) == 1 else [int(number) for number in numbers]
    if not Path(text).is_file():
        raise ConfigError(
            f"--labels {text!r} is neither 'first' nor 'all', a number, a list of frames, nor a file",
            "--labels first for one-shot training, --labels all for fully supervised training, --labels 4 for four a "
            'video, --labels 0,20 for these frames, --labels FILE.json for some by video: {"kitten": [0, 42]}',
        )
    try:
        named = {str(name): tuple(frames) for name, frames in read_json(text).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{text}: no frames by video ({error})", 'write {"kitten": [0, 42], "street": [7]}'
        ) from error
    return named
