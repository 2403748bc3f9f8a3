"""What a run scores when it ends: one split or several, and what becomes of one that cannot be scored."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image
from runs import config_of, copy_of_made, train_alone
from typer.testing import CliRunner

from ovos_ray import networks
from ovos_ray.cli.app import app
from ovos_ray.config import EvaluationConfig, ExperimentConfig, ScoredSplit, SegmentConfig, override
from ovos_ray.config.digest import digest, resolve_paths
from ovos_ray.errors import ConfigError, DataError, EvaluationError, OvosError
from ovos_ray.evaluate.evaluation import check_benchmarks, evaluate_network
from ovos_ray.evaluate.score.scoring import evaluate_folders
from ovos_ray.run.checks import check_config
from ovos_ray.run.score import finished_runs, score_run
from ovos_ray.storage import Storage
from ovos_ray.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, its shards, and the same videos as YouTube-VOS publishes a validation split: first masks only."""
    root = copy_of_made(tmp_path_factory.mktemp("data"), num_train=2, num_frames=5).parent
    valid = root / "youtube" / "valid"
    shutil.copytree(root / "dataset" / "JPEGImages" / "480p" / "val-000", valid / "JPEGImages" / "val-000")
    (valid / "Annotations" / "val-000").mkdir(parents=True)
    first = "480p/val-000/00000.png"
    shutil.copy(root / "dataset" / "Annotations" / first, valid / "Annotations" / "val-000" / "00000.png")
    objects = {"1": {"category": "cat", "frames": [f"{t:05d}" for t in range(5)]}}
    (valid / "meta.json").write_text(json.dumps({"videos": {"val-000": {"objects": objects}}}))
    return root


def run(
    data: Path, storage: Path, tracking_uri: str = "", name: str = "run", **evaluation: Any
) -> tuple[RunFolder, list[dict[str, Any]]]:
    small = {"network.name": "stcn-tiny", "data.clip_length": 3, "data.batch_size": 1, "data.crop_size": 32}
    scored = {f"evaluation.{key}": value for key, value in evaluation.items()}
    changes = small | scored | {"train.steps": 1, "tracking_uri": tracking_uri, "name": name}
    config = resolve_paths(config_of(data / "shards", storage, **changes), data)
    events: list[dict[str, Any]] = []
    RunFolder.of(config).claim(config)
    train_alone(config, watcher=events.append)
    return RunFolder.of(config), events


def test_several_splits_are_scored_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    folder, _ = run(root, tmp_path, root="dataset", split="val", also=("seen=dataset:train",))
    result = folder.result()
    assert result is not None
    assert result["not_scored"] == {}
    for suffix, prefix, names in (("", "", ["val-000"]), ("-seen", "seen/", ["train-000", "train-001"])):
        predictions = tmp_path / "run" / f"predictions{suffix}"
        assert sorted(path.name for path in predictions.glob("[!.]*")) == names
        expected = evaluate_folders(predictions, root / "dataset", "davis2017", sequences=names, num_processes=1)
        assert result["scores"][f"{prefix}jf"] == expected.jf
        assert (tmp_path / "run" / f"scores{suffix}.csv").read_text() == expected.to_csv()
    assert result["scores"]["jf"] != result["scores"]["seen/jf"]


def test_videos_that_are_scored_while_the_next_is_predicted_have_the_same_scores(root: Path, tmp_path: Path) -> None:
    class Noting(ThreadPoolExecutor):
        predicted: ClassVar[list[int]] = []

        def submit(self, *args: Any, **more: Any) -> Any:
            self.predicted.append(len(list((tmp_path / "beside").glob("train-*"))))
            return super().submit(*args, **more)

    network = networks.build("stcn-tiny", seed=0)
    after = evaluate_network(network, root=str(root / "dataset"), split="train")
    with Noting(2) as scorers:
        out = Storage(str(tmp_path / "beside"))
        beside = evaluate_network(network, root=str(root / "dataset"), split="train", out=out, scorers=scorers)
    assert Noting.predicted == [1, 2], "each is handed out before the next one is predicted"
    assert beside.to_csv() == after.to_csv()
    with Noting(2) as scorers, pytest.raises(EvaluationError, match="more than one frame"):
        evaluate_network(network, root=str(root / "youtube"), split="valid", scorers=scorers)


def test_what_a_reader_of_the_scores_should_know_is_in_all_that_a_run_tells(
    root: Path, tmp_path: Path, store: str, client: Any
) -> None:
    whole = Path(shutil.copytree(root / "youtube", tmp_path / "youtube"))
    masks = root / "dataset" / "Annotations" / "480p" / "val-000"
    shutil.copytree(masks, whole / "valid" / "Annotations" / "val-000", dirs_exist_ok=True)
    shown = {"1": 5, "2": 5, "3": 1}  # frames
    objects = {name: {"category": "cat", "frames": [f"{t:05d}" for t in range(n)]} for name, n in shown.items()}
    (whole / "valid" / "meta.json").write_text(json.dumps({"videos": {"val-000": {"objects": objects}}}))
    folder, events = run(root, tmp_path / "runs", store, "noted", root=str(whole), split="valid")
    annotations = whole / "valid" / "Annotations"
    expected = evaluate_folders(tmp_path / "runs/noted/predictions", annotations, "youtube-vos", num_processes=1).notes
    assert [note.split()[:2] for note in expected] == [["1", "objects"], ["G", "needs"]]
    result = folder.result()
    assert result is not None
    assert "jf" in result["scores"]
    assert result["score_notes"] == {str(whole): list(expected)}
    told = client.get_run(result["tracking_run"]).data
    assert told.tags["ovos.score_notes"] == "; ".join(expected)
    assert all(any(note in str(event.get("event")) for event in events) for note in expected)
    later, _ = run(root, tmp_path / "later")
    said: list[str] = []
    score_run(later, [f"evaluation.also=youtube-vos={whole}:valid"], said.append)
    assert (later.result() or {})["score_notes"] == result["score_notes"]
    assert all(any(note in line for line in said) for note in expected)


def test_a_split_without_annotations_is_predicted_and_said_to_be_unscored(root: Path, tmp_path: Path) -> None:
    folder, events = run(root, tmp_path, root="dataset", also=("youtube=youtube:valid",))
    result = folder.result()
    assert result is not None
    assert set(result["scores"]) == {"jf", "j", "f"}
    ((where, why),) = result["not_scored"].items()
    assert where == str(root / "youtube")
    assert "more than one frame" in why
    assert len(list((tmp_path / "run" / "predictions-youtube" / "val-000").glob("*.png"))) == 5
    assert any("not scored, masks kept in" in str(event.get("event")) for event in events)


def test_a_plain_folder_is_scored_by_its_masks_by_frame(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(root / "dataset" / "JPEGImages" / "480p" / "val-000", mine / "val-000")
    shutil.copytree(root / "dataset" / "Annotations" / "480p" / "val-000", mine / "masks" / "val-000")
    folder, _ = run(root, tmp_path, root="dataset", also=(f"mine={mine}:train",))
    result = folder.result()
    assert result is not None
    assert result["not_scored"] == {}
    assert result["scores"]["mine/jf"] == result["scores"]["jf"], "the same video, in another layout"


@pytest.mark.parametrize("place", ["videos", "."])
def test_a_split_without_masks_by_frame_is_refused_before_training(root: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(root / "dataset" / "JPEGImages" / "480p" / "val-000", tmp_path / place / "val-000")
    shutil.copy(root / "dataset" / "Annotations/480p/val-000/00000.png", tmp_path / place / "val-000.png")
    with pytest.raises(DataError, match=r"1 of 1 videos of train cannot be scored \(val-000: 1 mask\)") as error:
        check_benchmarks(EvaluationConfig(root=str(tmp_path), split="train"))
    assert "masks/NAME/FRAME.png" in (error.value.remedy or "")


def test_videos_of_a_plain_folder_that_cannot_be_scored_are_named_before_training(root: Path, tmp_path: Path) -> None:
    frames, masks = (root / "dataset" / part / "480p" / "val-000" for part in ("JPEGImages", "Annotations"))
    for name in ("whole", "none", "few", "small"):
        shutil.copytree(frames, tmp_path / name)
        if name != "none":
            shutil.copytree(masks, tmp_path / "masks" / name)
    few, small = sorted((tmp_path / "masks" / "few").iterdir()), tmp_path / "masks" / "small" / "00002.png"
    for path in few[2:]:
        path.unlink()
    Image.open(small).resize((20, 10), Image.Resampling.NEAREST).save(small)
    with pytest.raises(DataError) as error:
        check_benchmarks(EvaluationConfig(root=str(tmp_path), split="train"))
    assert "3 of 4 videos of train cannot be scored" in str(error.value)
    assert "few: 2 masks; none: " in str(error.value)
    assert "small: 00002.png has 20 x 10 pixels, its frame 64 x 48" in str(error.value)
    config = config_of(root / "shards", tmp_path, **{"validation.root": str(tmp_path), "validation.split": "train"})
    with pytest.raises(DataError, match=r"validation\.root: .*3 of 4 videos"):
        check_config(config)
    (tmp_path / "val.txt").write_text("whole\n")
    check_benchmarks(EvaluationConfig(root=str(tmp_path), split="val"))
    check_config(override(config, {"validation.split": "val"}))


def test_wrong_paths_are_found_before_training(root: Path) -> None:
    check_benchmarks(
        EvaluationConfig(root=str(root / "dataset"), also=(ScoredSplit("other", str(root / "dataset"), "train"),))
    )
    with pytest.raises(DataError, match=r"evaluation\.root: .*no split 'test'") as error:
        check_benchmarks(EvaluationConfig(root=str(root / "dataset"), split="test"))
    assert "evaluation.split=SPLIT" in (error.value.remedy or "")
    with pytest.raises(DataError, match=r"evaluation\.also: .*nowhere"):
        check_benchmarks(EvaluationConfig(also=(ScoredSplit("other", str(root / "nowhere")),)))
    with pytest.raises(ConfigError, match="'a' twice"):
        check_benchmarks(
            EvaluationConfig(also=tuple(ScoredSplit("a", str(root / "dataset"), s) for s in ("val", "train")))
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("davis2016=DAVIS/2016", ("davis2016", "DAVIS/2016", "val")),
        ("yv=s3://bucket/YouTube:valid", ("yv", "s3://bucket/YouTube", "valid")),
        ("yv=s3://bucket/YouTube", ("yv", "s3://bucket/YouTube", "val")),
    ],
)
def test_datasets_are_named_in_one_word(text: str, expected: tuple[str, str, str]) -> None:
    split = ScoredSplit.from_text(text)
    assert (split.name, split.root, split.split) == expected
    assert ScoredSplit.from_text(str(split)) == split


def test_a_dataset_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="NAME=FOLDER"):
        ScoredSplit.from_text("DAVIS/2016")


def test_further_datasets_count_in_the_digest_wherever_they_lie() -> None:
    config = ExperimentConfig()
    one, same, other = (
        digest(override(config, {"evaluation.also": (also,)})) for also in ("a=/x/DAVIS", "a=/y/DAVIS", "a=/x/YouTube")
    )
    assert one == same
    assert one != other


def test_finished_weights_are_scored_later_into_the_same_run(
    root: Path, tmp_path: Path, store: str, client: Any
) -> None:
    together, _ = run(root, tmp_path / "together", root=str(root / "dataset"), also=(f"seen={root / 'dataset'}:train",))
    folder, _ = run(root, tmp_path / "later", store)
    before = folder.result()
    assert before is not None
    assert before["scores"] == {}
    for words in (
        ["evaluation.split=val", f"evaluation.root={root / 'dataset'}"],
        [f"evaluation.root={root / 'dataset'}", f"evaluation.also=seen={root / 'dataset'}:train"],
    ):
        done = CliRunner().invoke(app, ["score", str(tmp_path / "later"), *words], catch_exceptions=False)
        assert done.exit_code == 0
    expected, result = together.result(), folder.result()
    assert expected is not None
    assert result is not None
    assert set(result.pop("scored_on")) == {"", "seen"}
    assert result == {**before, "scores": expected["scores"]}
    for name in ("scores.csv", "scores-seen.csv"):
        assert folder.storage.read(name) == together.storage.read(name)
    logged = client.get_run(before["tracking_run"]).data.metrics
    assert {f"final/{name}": value for name, value in result["scores"].items()}.items() <= logged.items()
    assert len(client.get_metric_history(before["tracking_run"], "final/jf")) == 1, "what was scored before stays"
    again = CliRunner().invoke(app, ["score", str(tmp_path / "later/run"), f"evaluation.root={root / 'dataset'}"])
    assert "nothing new, its scores are there" in again.output
    for words, named in (
        ([f"evaluation.root={root / 'dataset'}", "evaluation.split=train"], "split val, not train"),
        ([f"evaluation.also=seen={root / 'dataset'}:val"], "split train, not val"),
        (["evaluation.split=train", f"evaluation.also=third={root / 'dataset'}"], "evaluation.split is of evaluation"),
    ):
        with pytest.raises(ConfigError, match=named):
            score_run(folder, words, print)


def test_earlier_parts_of_a_populations_member_are_no_runs_to_score(tmp_path: Path) -> None:
    for name, stop_step in (("part", 1), ("end", 2)):
        segment = SegmentConfig(start_step=stop_step - 1, stop_step=stop_step, parent="p", parent_digest="d")
        config = ExperimentConfig(name=name, storage=str(tmp_path), segment=segment)
        folder = RunFolder.of(override(config, {"train.steps": 2}))
        folder.claim(override(config, {"train.steps": 2}))
        folder.finish({"scores": {}})
    assert [Path(one.storage.folder).name for one in finished_runs(tmp_path)] == ["end"]
    assert len(finished_runs(tmp_path / "part")) == 1


def test_a_strangers_run_is_scored_where_it_lies_and_told_to_nobody(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration names a server, to which MLflow would send the user's credentials, and another folder."""
    folder, _ = run(root, tmp_path / "theirs")
    stored = json.loads(folder.storage.read("config.json"))
    stored["config"] |= {"tracking_uri": "http://stranger.invalid:5000", "storage": str(tmp_path / "victim")}
    folder.storage.write(json.dumps(stored).encode(), "config.json")
    result = {**(folder.result() or {}), "tracking_run": "0" * 32}
    folder.storage.write(json.dumps(result).encode(), "result.json")
    asked: list[object] = []
    monkeypatch.setattr("ovos_ray.run.score.run_of", lambda *words: asked.append(words))
    said: list[str] = []
    assert score_run(folder, [f"evaluation.root={root / 'dataset'}", "evaluation.split=val"], said.append)
    assert asked == []
    assert any("no run of yours was tracked" in text for text in said)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.steps=5"], "a finished run stays what it is"),
        ([], "nothing to score on"),
        (["evaluation.root=nowhere"], "no such folder"),
        (["evaluation.rooot=x"], "rooot"),
    ],
)
def test_what_cannot_be_scored_later_is_refused(root: Path, tmp_path: Path, words: list[str], said: str) -> None:
    assert isinstance(CliRunner().invoke(app, ["score", str(tmp_path), *words]).exception, ConfigError)
    folder, _ = run(root, tmp_path)
    before = folder.storage.read("result.json")
    error = CliRunner().invoke(app, ["score", str(tmp_path / "run"), *words]).exception
    assert isinstance(error, OvosError)
    assert said in error.message
    assert folder.storage.read("result.json") == before
