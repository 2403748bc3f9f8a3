"""`ovos-ray demo`, on few videos and for two steps, which teach nothing: the chain from pixels to the report holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovos_ray.cli.demo_chain import run_demo
from ovos_ray.evaluate.metrics import boundary_accuracy, region_similarity

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def test_the_demo_packs_trains_compares_and_reports(tmp_path: Path) -> None:
    run_demo(tmp_path, steps=2, num_videos={"train": 4, "select": 1, "val": 1})
    told: dict[str, Any] = json.loads((tmp_path / "demo.json").read_text())
    assert len(told["trials"]) == 6
    assert told["steps"] == 2
    for run in (tmp_path / "runs" / "demo").glob("*/result.json"):
        assert json.loads(run.read_text())["labels"]["training"] == 4, "one label a video"
    page = (tmp_path / "report" / "report.html").read_text()
    for scores in told["trials"].values():
        assert f"{scores['jf']:.1f}" in page

    # The score of copying, from its masks, by the metric alone.
    truth = tmp_path / "dataset" / "Annotations" / "480p"
    found = []
    for folder in (tmp_path / "baselines" / "copy-the-first-mask").glob("val*"):
        frames = sorted(path.name for path in folder.glob("*.png"))[1:-1]
        own, true = (
            np.stack([np.array(Image.open(root / folder.name / name)) for name in frames])
            for root in (folder.parent, truth)
        )
        for index in range(1, int(true.max()) + 1):
            pair = own == index, true == index
            found.append((region_similarity(*pair).mean() + boundary_accuracy(*pair).mean()) / 2)
    assert told["baselines"]["copy the first mask"]["jf"] == pytest.approx(100 * float(np.mean(found)), abs=1e-6)
    assert (tmp_path / "demo.png").stat().st_size > 10_000
