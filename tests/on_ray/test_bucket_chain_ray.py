"""The whole chain on a bucket, under Ray: pack, a sweep that stops trials early, scores, a report; with and without
faults. No file but those of the tracking store lies on a disk that several machines would have to share.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_s3 import serving
from tiny_study import make_dataset

from ovos_ray.storage import Storage

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]

STUDY = """
from ovos_ray.study.space import SearchSpace

def study() -> SearchSpace:
    # At a rate of 1e-2 the network loses every object in five steps; at 0 it stays as it was made.
    return SearchSpace(
        name="chain",
        trainable="trainables.one_shot",
        axes={"optimizer.learning_rate method.backward": ((0.0, "2-step"), (1e-2, "2-step"))},
        seeds=(0,),
        metric="val/jf",
        scheduler="asha",
        overrides={
            "network.name": "stcn-tiny", "method.loss.cross_entropy": "plain", "data.max_skip": ((0.0, 1),),
            "data.clip_length": 4, "data.batch_size": 2, "data.crop_size": 48, "train.steps": 40,
            "train.checkpoint_every": 10, "train.num_threads": 1, "train.cpus_per_worker": 0.5,
            "validation.split": "train", "validation.every": 5, "validation.num_videos": 1,
        },
    )
"""


def test_the_whole_chain_on_a_bucket_that_fails_gives_the_weights_of_one_that_does_not(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    (tmp_path / "recipe.py").write_text(STUDY)

    def run(*words: str) -> str:
        environment = {**os.environ, "OVOS_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "ovos_ray", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def chain(name: str) -> Storage:
        bucket = f"s3://ovos/{name}"
        for shards, labels, split in (("first", "first", "train"), ("train", "all", "train"), ("val", "all", "val")):
            dataset = ["synthetic", "--root", "dataset", "--labels", labels, "--split", split]
            run("pack", *dataset, "--out", f"{bucket}/shards/{shards}")
        settings = [
            f"data.shards={bucket}/shards/first",
            f"validation.shards={bucket}/shards/train",
            f"evaluation.shards={bucket}/shards/val",
            f"storage={bucket}/runs",
            f"tracking_uri=sqlite:///{tmp_path}/{name}.db",
        ]
        run("sweep", "recipe.study", "--max-concurrent", "1", *settings)
        run("report", "chain", "--tracking-uri", f"sqlite:///{tmp_path}/{name}.db", "--out", f"report-{name}")
        return Storage(f"{bucket}/runs/chain")

    with serving() as server:
        calm = chain("calm")
        before = server.fail(0.05)
        faulty = chain("faulty")
        after = server.fail(0)
        faults = {kind: number - before.get(kind, 0) for kind, number in after.items() if not kind.endswith(" fine")}
        assert sum(faults.values()) >= 20, faults
        results = []
        for study in (calm, faulty):
            names = [name for name in study.folders() if (study / name).exists("result.json")]
            results.append({name: json.loads((study / name).read("result.json")) for name in names})
            assert sorted("stopped" in result for result in results[-1].values()) == [False, True]
        for name, result in results[0].items():
            assert results[1][name]["scores"] == result["scores"]
            assert results[1][name]["steps"] == result["steps"]
            if "stopped" not in result:
                weights = (calm / name).read("network.safetensors")
                assert (faulty / name).read("network.safetensors") == weights
                assert result["scores"]["jf"] > 0
        pages = [(tmp_path / f"report-{name}" / "report.html").read_text() for name in ("calm", "faulty")]
        counts = [re.search(r"2 trials: [^<.]*", page) for page in pages]
        assert [found and found[0] for found in counts] == ["2 trials: 1 finished, 1 stopped"] * 2
        assert all("Predictions beside the truth" in page for page in pages)
        drawn = [re.findall(r'<img src="(data:[^"]+)" alt="(val-000, worst [^"]+)"', page) for page in pages]
        assert len(drawn[0]) == 2, "the truth and the masks of the run that finished"
        assert drawn[0] == drawn[1]
