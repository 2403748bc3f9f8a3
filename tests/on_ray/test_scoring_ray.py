"""Videos are scored in tasks beside the prediction; one whose process is killed is scored again."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

import pytest
from scored_masks import make_davis_masks

from ovos_ray.errors import EvaluationError
from ovos_ray.evaluate.score.scoring import ScoredOrProblem, ScoredVideos, evaluate_folders, score_videos
from ovos_ray.evaluate.score.table import Protocol
from ovos_ray.on_ray.scoring import ScoringTasks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def killed_once(
    marks: Path, predictions: Path, annotations: Path, protocol: Protocol, videos: Collection[str]
) -> ScoredOrProblem:
    """Scores in a process that is killed at its first try."""
    try:
        (marks / "-".join(videos)).touch(exist_ok=False)
    except FileExistsError:
        return score_videos(predictions, annotations, protocol, videos)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_scoring_task_that_is_killed_is_made_again_with_the_same_scores(tmp_path: Path) -> None:
    predictions, annotations = make_davis_masks(tmp_path)
    expected = evaluate_folders(predictions, annotations, "davis2017", num_processes=1).rows
    with ScoringTasks(2) as scorers:
        videos = ["bear", "swan"]
        parts = [scorers.submit(killed_once, tmp_path, predictions, annotations, "davis2017", [v]) for v in videos]
        found = [part.result(120) for part in parts]
        problem = scorers.submit(score_videos, predictions, annotations, "davis2017", ["cow"]).result(120)
    assert all((tmp_path / video).exists() for video in videos), "each was killed"
    assert tuple(row for part in found if isinstance(part, ScoredVideos) for row in part.rows) == expected
    assert isinstance(problem, EvaluationError), "why a video cannot be scored arrives whole"
    assert problem.remedy
