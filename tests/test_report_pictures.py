"""The pictures of the report come from what runs have stored."""

from __future__ import annotations

import base64
import io
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_study import memory_run, save_mask, square, write_videos

from ovos_ray.config import ExperimentConfig, flatten, override
from ovos_ray.track import pictures
from ovos_ray.track.comparison import compare
from ovos_ray.track.study import Study


def test_copy_score_and_pictures_come_from_stored_predictions(tmp_path: Path) -> None:
    sequences = ["a", "b"]
    write_videos(tmp_path / "data", sequences)
    params = {
        "method.name": "one_shot",
        "network.name": "xmem-tiny",
        "evaluation.protocol": "davis2017",
        "evaluation.root": str(tmp_path / "data"),
        "evaluation.split": "val",
    }
    runs = []
    for strategy, shift, quality in (("2-step", 8, 90.0), ("T-step", 0, 20.0)):
        for sequence, t in itertools.product(sequences, range(6)):
            save_mask(tmp_path / strategy / sequence / f"{t:05d}.png", square(t * shift))
        scores = {(sequence, 1): (quality, quality) for sequence in sequences}
        tags = {"ovos.predictions": str(tmp_path / strategy)}
        runs.append(memory_run(strategy, 0, scores, params={**params, "method.backward": strategy}, tags=tags))
    comparison = compare(Study("s", "1", "uri", tuple(runs)))
    perfect, copying = (found["a"] for found in pictures.traces(comparison.rows).values())
    # Two 24-pixel squares t·8 pixels apart overlap by 24 - 8t of 24 + 8t columns.
    overlap = [100 * max(0, 24 - 8 * t) / (24 + min(24, 8 * t)) for t in range(1, 6)]
    assert perfect.truth == pytest.approx([100.0] * 5)
    assert perfect.first == pytest.approx(overlap)
    assert copying.truth == pytest.approx(overlap)
    assert copying.copy_score == pytest.approx(100 - statistics.fmean(overlap))
    assert perfect.copy_score == pytest.approx(statistics.fmean(overlap) - 100)
    made = pictures.galleries(comparison.rows)
    assert {gallery.sequence for gallery in made} == {"a", "b"}
    assert [strip.label for strip in made[0].strips] == ["truth", *(row.label for row in comparison.rows)]
    assert all(strip.image.startswith("data:image/webp;base64,") for strip in made[0].strips)
    assert made[0].strips[0].film


def test_predictions_that_are_gone_cost_pictures_not_the_report(tmp_path: Path) -> None:
    run = memory_run("2-step", 0, {("a", 1): (50.0, 50.0)}, tags={"ovos.predictions": str(tmp_path / "gone")})
    comparison = compare(Study("s", "1", "uri", (run,)))
    assert pictures.traces(comparison.rows) == {}
    assert pictures.galleries(comparison.rows) == ()


def test_training_clip_is_shown_there_and_back(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from ovos_ray import networks
    from ovos_ray.data.layout import open_dataset
    from ovos_ray.data.shards import pack
    from ovos_ray.track.cycle import cycle_gallery

    write_videos(tmp_path / "data", ["a", "b"], frames=8)
    pack(open_dataset(tmp_path / "data", layout="davis2017"), tmp_path / "shards", labels="first", split="train")
    settings = {
        "method.backward": "2-step",
        "network.name": "stcn-tiny",
        "data.shards": str(tmp_path / "shards"),
        "data.clip_length": 4,
        "data.crop_size": 64,
        "train.steps": 3,
    }
    config = override(ExperimentConfig(), settings)
    params = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(config).items()}
    (tmp_path / "run").mkdir()
    save_file(networks.build("stcn-tiny", seed=1).state_dict(), tmp_path / "run" / "network.safetensors")
    tags = {"ovos.predictions": str(tmp_path / "run" / "predictions")}
    scores = {("a", 1): (50.0, 50.0)}
    (row,) = compare(Study("s", "1", "uri", (memory_run("2-step", 0, scores, params=params, tags=tags),))).rows
    gallery = cycle_gallery(row)
    assert gallery is not None
    assert gallery.sequence in ("a", "b")
    assert ["forward" in gallery.strips[0].label, "backward" in gallery.strips[1].label] == [True, True]
    strip = Image.open(io.BytesIO(base64.b64decode(gallery.strips[1].image.partition(",")[2]))).convert("L")
    grey = [float(np.std(np.asarray(strip)[:, t * 184 + 5 : t * 184 + 175])) < 2 for t in range(4)]
    # Frames 3, one of 1 and 2, and 0 are walked; the other one is left grey.
    assert grey[0] is grey[3] is False
    assert sorted(grey[1:3]) == [False, True]

    elsewhere = memory_run("2-step", 0, scores, params=params, tags={"ovos.predictions": "/gone/predictions"})
    assert cycle_gallery(compare(Study("s", "1", "uri", (elsewhere,))).rows[0]) is None
