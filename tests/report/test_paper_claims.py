"""What `benchmarks/paper_claims.py` measures, on videos where the answer is known."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.folders.synthetic import SyntheticConfig, generate
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.prediction import predict_dataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_claims", REPOSITORY / "benchmarks" / "paper_claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_copying_has_a_high_copy_score_and_the_truth_a_low_one(study: ModuleType, tmp_path: Path) -> None:
    root = generate(tmp_path / "s", num_videos={"val": 2}, config=SyntheticConfig(height=48, width=80, num_frames=8))
    folder = open_dataset(root, layout="davis2017")
    predict_dataset(copy_first_mask, folder, "val", tmp_path / "copied")
    copied = study.copy_scores(folder, tmp_path / "copied")
    true = study.copy_scores(folder, root / "Annotations" / "480p")
    assert set(copied) == set(true) == {"val-000", "val-001"}
    assert all(copied[video] == pytest.approx(-true[video]) for video in copied), "J(first, truth) is in both"
    assert min(copied.values()) > 20

    merged = study.over_videos(folder, root / "Annotations" / "480p", study.merged_j)
    assert all(score == pytest.approx(100) for score in merged.values())


def test_scores_of_a_video_are_the_mean_over_its_objects(study: ModuleType, tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("sequence,object,j_mean,f_mean\na,1,10,30\na,2,50,70\nb,1,80,100\n")
    assert study.video_scores(table) == {"a": 40.0, "b": 90.0}


def test_a_study_without_an_empty_reference_gets_no_row_for_it(study: ModuleType, tmp_path: Path) -> None:
    root = generate(tmp_path / "s", num_videos={"val": 1}, config=SyntheticConfig(height=48, width=80, num_frames=4))
    runs = defaultdict(dict, {"XMem, fully supervised": {0: tmp_path / "run"}})
    assert study.empty_references(open_dataset(root, layout="davis2017"), runs) == {}
    assert list(runs) == ["XMem, fully supervised"]
