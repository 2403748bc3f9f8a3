"""Datasets whose names lead elsewhere, and careless choices of `--out`: no file of the user's is lost or adopted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from davis_folder import make_davis
from typer.testing import CliRunner

from ovos_ray import networks
from ovos_ray.cli.app import app
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.data.masks import encode_jpeg, encode_mask
from ovos_ray.errors import DataError, OvosError
from ovos_ray.evaluate.evaluation import evaluate_network
from ovos_ray.evaluate.infer.baselines import copy_first_mask
from ovos_ray.evaluate.infer.prediction import predict_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.storage import Storage

NAMES = ["..", "../victim", "/etc", ".", "a\\b", "\x1b[31mred", "v0/../../victim"]


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return make_davis(tmp_path / "davis")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, OvosError), (result.output, result.exception)
    assert result.exception.remedy
    return result.exception.message


def predict(*arguments: object) -> str:
    return refused("predict", "--baseline", "copy", *arguments)


def test_predictions_never_replace_the_frames_they_are_made_from(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for t in range(3):
            frame = np.full((32, 48, 3), 40 * t, np.uint8)
            (tmp_path / f"videos/{name}/{t:05d}.jpg").write_bytes(encode_jpeg(frame))
        (tmp_path / f"videos/{name}.png").write_bytes(encode_mask(np.eye(32, 48, dtype=np.uint8)))
    before = files(tmp_path)
    videos = tmp_path / "videos"
    message = predict("--layout", "folder", "--split", "train", "--root", videos, "--out", videos)
    assert "would be written over" in message
    message = predict("--frames", videos / "v1", "--mask", videos / "v1.png", "--out", videos)
    assert "would be written over" in message
    (tmp_path / "link").symlink_to(videos)
    assert "written over" in predict("--frames", videos / "v1", "--mask", videos / "v1.png", "--out", tmp_path / "link")
    (tmp_path / "link").unlink()
    assert files(tmp_path) == before


def test_an_overlay_never_replaces_the_video_it_shows(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"a film")
    (tmp_path / "m.png").write_bytes(encode_mask(np.eye(32, 48, dtype=np.uint8)))
    arguments = ["--frames", tmp_path / "clip.mp4", "--mask", tmp_path / "m.png", "--out", tmp_path / "out"]
    assert "which is read" in predict(*arguments, "--overlay", tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == b"a film"


def test_an_overlay_never_replaces_a_film_of_the_user_s(davis: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    films = tmp_path / "films"
    films.mkdir()
    (films / "v1.mp4").write_bytes(b"a film")
    arguments = ["--root", davis, "--split", "train", "--out", tmp_path / "out", "--overlay"]
    assert "v1.mp4: exists" in predict(*arguments, films)
    assert files(tmp_path / "films") == {"v1.mp4": b"a film"}
    assert not (tmp_path / "out").exists()

    def again() -> None:
        result = CliRunner().invoke(app, ["predict", "--baseline", "copy", *map(str, [*arguments, tmp_path / "ours"])])
        assert result.exit_code == 0, result.output

    again()
    whole = files(tmp_path / "ours")
    (tmp_path / "out/v1/00003.png").unlink()  # so that v1 and its overlay are made again
    again()
    assert files(tmp_path / "ours").keys() == whole.keys()


def test_a_project_with_an_index_of_its_own_is_not_replaced_by_shards(davis: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/index.json").write_text("{}")
    (tmp_path / "project/thesis.tex").write_text("years of work")
    before = files(tmp_path)
    arguments = ["pack", "davis2017", "--root", davis, "--split", "train", "--overwrite", "--out"]
    assert "did not make it" in refused(*arguments, tmp_path / "project")
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_list_that_leads_elsewhere_is_refused(davis: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "project/thesis").mkdir(parents=True)
    (tmp_path / "project/thesis/thesis.tex").write_text("years of work")
    (davis / "ImageSets/2017/val.txt").write_text(f"v0\n{name}\n")
    before = files(tmp_path)
    for out in ("project", "project/out2"):
        assert "val.txt: video" in predict("--root", davis, "--out", tmp_path / out)
    assert "val.txt: video" in refused("pack", "davis2017", "--root", davis, "--out", tmp_path / "s", "--split", "val")
    network = networks.build("stcn-tiny")
    with pytest.raises(DataError, match=r"val\.txt: video"):
        evaluate_network(network, root=str(davis), out=Storage(str(tmp_path / "project/thesis")))
    assert files(tmp_path) == before


def test_training_refuses_a_hostile_list_of_its_evaluation_before_it_begins(davis: Path, tmp_path: Path) -> None:
    pack(open_dataset(davis), tmp_path / "s", labels="first", split="train")
    (davis / "ImageSets/2017/val.txt").write_text("..\n")
    run = tmp_path / "runs/run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/precious").write_text("weights")
    arguments = [f"data.shards={tmp_path / 's'}", "data.clip_length=3", f"storage={tmp_path / 'runs'}", "name=run"]
    message = refused(
        "train",
        "trainables.synthetic",
        *arguments,
        f"evaluation.root={davis}",
        f"validation.root={davis}",
        "validation.split=train",
        "--dry-run",
    )
    assert "evaluation.root" in message
    assert "val.txt: video '..'" in message
    assert (run / "checkpoints/precious").read_text() == "weights"


@pytest.mark.parametrize("name", NAMES)
def test_a_meta_json_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret.txt").write_text("secret")
    valid = tmp_path / "YouTube/valid"
    for kind in ("JPEGImages", "Annotations"):
        (valid / kind / "vid").mkdir(parents=True)
    objects = {"1": {"category": "x", "frames": ["00000"]}}
    (valid / "meta.json").write_text(json.dumps({"videos": {name: {"objects": objects}}}))
    before = files(tmp_path)
    assert "meta.json: video" in predict("--root", valid.parent, "--split", "valid", "--out", tmp_path / "a/b")
    assert files(tmp_path) == before


def test_true_masks_are_not_adopted_as_predictions(davis: Path, tmp_path: Path) -> None:
    shutil.copytree(davis / "Annotations/480p", tmp_path / "copy")
    (davis / "ImageSets/2017/val.txt").write_text("v0\nv2\n")
    before = files(tmp_path)
    arguments = ["predict", "--baseline", "colour", "--root", davis, "--evaluate"]
    assert "which is read" in refused(*arguments, "--out", davis / "Annotations/480p")
    assert "did not make it" in refused(*arguments, "--out", tmp_path / "copy")
    assert files(tmp_path) == before


def test_a_link_in_the_folder_of_predictions_is_not_followed(davis: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/v1").symlink_to(tmp_path / "victim")
    before = files(tmp_path)
    assert "does not lie in" in predict("--root", davis, "--split", "train", "--out", tmp_path / "out")
    assert files(tmp_path) == before
    assert (tmp_path / "out/v1").is_symlink()


def test_a_damaged_prediction_is_made_again(davis: Path, tmp_path: Path) -> None:
    def reports() -> list[bool]:
        return [r.skipped for r in predict_dataset(copy_first_mask, open_dataset(davis), "train", tmp_path / "out")]

    assert reports() == [False] * 3
    whole = files(tmp_path / "out")
    (tmp_path / "out/v0/00003.png").write_bytes(b"")  # as a power cut may leave it
    truncated = tmp_path / "out/v2/00002.png"
    truncated.write_bytes(truncated.read_bytes()[:-1])
    assert reports() == [False, True, False]
    assert files(tmp_path / "out") == whole
    assert reports() == [True] * 3


def test_predictions_of_version_0_1_are_found_again(davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_dataset(copy_first_mask, open_dataset(davis), "train", out)
    markers = {path.stem: path.read_text().split() for path in out.glob(".ovos-ray/predictions/*")}
    shutil.rmtree(out / ".ovos-ray")
    masks = {name: words[-1] for name, words in markers.items() if name != "v2"}
    (out / ".predictions.json").write_text(json.dumps({"origin": "copy_first_mask", "masks": masks}))
    with pytest.raises(DataError, match="v2: exists, and ovos-ray did not make it"):
        predict_dataset(copy_first_mask, open_dataset(davis), "train", out)
    shutil.rmtree(out / "v2")
    reports = predict_dataset(copy_first_mask, open_dataset(davis), "train", out)
    assert [report.skipped for report in reports] == [True, True, False]
