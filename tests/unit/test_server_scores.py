"""What a benchmark's server answered is entered into the run, its MLflow run and the paper's Table 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import memory_run
from tiny_study import make_dataset, tiny_config
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.config import ScoredSplit, override
from ovos_ray.errors import EvaluationError, OvosError
from ovos_ray.evaluate.score.scoring import evaluate_folders
from ovos_ray.evaluate.score.server import read_server_scores
from ovos_ray.report.numbers.comparison import compare
from ovos_ray.report.paper.paper import paper_tables
from ovos_ray.report.runs import Study
from ovos_ray.run.here import fit_here
from ovos_ray.run.request import RunRequest

YOUTUBE = (
    "benchmark youtube-vos2018\ndataset youtube2018\n# 3 July\nG 86.1\nJ_S 85.8\nJ_U 80.0 # exact\nF_S 90.5\nF_U 88.1\n"
)
SCORES = {"g": 86.1, "j_s": 85.8, "j_u": 80.0, "f_s": 90.5, "f_u": 88.1}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("server"))


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    path = tmp_path / "scores.txt"
    path.write_text(YOUTUBE)
    return path


@pytest.mark.parametrize(
    ("text", "scores", "dataset"),
    [
        (YOUTUBE, SCORES, "youtube-vos2018/val"),
        (
            "benchmark: youtube-vos2019\nOverall: 0.861\nJ_seen: 0.858\nJ_unseen: 0.8\nF_seen: 0.905\n"
            "F_unseen: 0.881\n",
            SCORES,
            "youtube-vos2019/val",
        ),
        (
            "benchmark davis2017-test-dev\nJ&F-Mean = 84.1\nJ-Mean = 80.8\nF-Mean = 87.4\nJ-Recall = 90",
            {"jf": 84.1, "j": 80.8, "f": 87.4},
            "davis2017/test-dev",
        ),
    ],
)
def test_files_of_names_and_values_and_the_servers_own_are_read(
    tmp_path: Path, text: str, scores: dict[str, float], dataset: str
) -> None:
    (tmp_path / "a.txt").write_text(text)
    read = read_server_scores(tmp_path / "a.txt")
    assert read.scores == pytest.approx(scores)
    assert read.dataset == dataset


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("G 86.1\n", "whose scores"),
        ("benchmark imagenet\n", "no benchmark 'imagenet'"),
        (YOUTUBE.replace("F_U 88.1", ""), "F_U missing"),
        (YOUTUBE.replace("88.1", "188.1"), "not percentages"),
        (YOUTUBE.replace("88.1", "nan"), "not percentages"),
        (YOUTUBE.replace("88.1", "high"), "high"),
        (YOUTUBE.replace("85.8", "58.8"), "the mean of its parts is 79.35"),
        (YOUTUBE + "86.1\n", "not a name and a value"),
    ],
)
def test_what_is_no_answer_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(OvosError, match=said):
        read_server_scores(tmp_path / "a.txt")


def test_scores_go_into_the_run_and_its_mlflow_run(
    root: Path, tmp_path: Path, answer: Path, store: str, client: Any
) -> None:
    config = override(
        tiny_config(root, steps=1),
        {"name": "mine", "storage": str(tmp_path), "tracking_uri": store},
    )
    config = override(config, {"evaluation.also": (ScoredSplit("youtube2018", str(root / "dataset"), "train"),)})
    before = dict(fit_here(RunRequest(config, "server", "mine")).values)
    place = tmp_path / "mine" / "result.json"
    place.write_text(json.dumps({**before, "not_scored": {str(root / "dataset"): "on a server"}}))
    done = CliRunner().invoke(app, ["score", str(tmp_path / "mine"), "--server", str(answer)], catch_exceptions=False)
    assert "youtube2018/g 86.1" in done.output
    result = json.loads(place.read_text())
    assert result["scores"] == {**before["scores"], **{f"youtube2018/{key}": value for key, value in SCORES.items()}}
    assert result["not_scored"] == {}
    logged = client.get_run(before["tracking_run"]).data
    assert logged.metrics["final/youtube2018/j_u"] == 80.0
    assert logged.metrics["final/jf"] == before["scores"]["jf"], "what was scored before stays"
    assert logged.tags["ovos.server.youtube2018"] == "youtube-vos2018/val"
    for words in (["evaluation.root=x"], []):
        answer.write_text(YOUTUBE if words else YOUTUBE.replace("youtube2018\n", "elsewhere\n"))
        refused = CliRunner().invoke(app, ["score", str(tmp_path / "mine"), "--server", str(answer), *words])
        assert isinstance(refused.exception, OvosError)


def test_table_2_is_completed_by_them() -> None:
    params = {
        "network.name": "xmem", "method.name": "one_shot", "method.backward": "2-step", "network.init": "imagenet",
        "pretrain.recipe": "trainables.static_pretraining.xmem", "train.steps": "110000", "data.clip_length": "8",
        "data.batch_size": "8",
    }  # fmt: skip
    metrics = {"final/jf": 80.0, **{f"final/yv/{key}": value for key, value in SCORES.items()}}
    tags = {"ovos.server.yv": "youtube-vos2018/val"}
    davis = {("blackswan", 1): (79.0, 81.0)}
    run = memory_run("2-step", 0, davis, params=params, tags=tags, metrics=metrics, also={"yv": {}})
    table = next(t for t in paper_tables(compare(Study("s", "1", "uri", (run,)))) if t.number == 2)
    (ours,) = (cells for line in table.lines for cells in line.ours)
    assert [score and score.mean for score in ours.scores[:5]] == [86.1, 85.8, 90.5, 80.0, 88.1]
    assert ours.differences[0] == pytest.approx(86.1 - 79.6)
    assert ours.scores[5:] == (None,) * 5


def test_a_split_without_annotations_is_sent_to_the_server(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Annotations" / "val-000"
    folder.mkdir(parents=True)
    masks = root / "dataset" / "Annotations" / "480p" / "val-000"
    (folder / "00000.png").write_bytes((masks / "00000.png").read_bytes())
    for protocol in ("youtube-vos", "davis2017"):
        with pytest.raises(EvaluationError) as error:
            evaluate_folders(masks.parent, tmp_path / "Annotations", protocol, sequences=["val-000"], num_processes=1)  # type: ignore[arg-type]
        assert "ovos-ray submission" in str(error.value.remedy)
