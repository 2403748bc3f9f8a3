"""`ovos-ray doctor` finds what is wrong, says what to do, and exits with 1; what is right it passes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.data.folders import synthetic
from ovos_ray.data.folders.open import open_dataset
from ovos_ray.packing.pack import pack
from ovos_ray.track.records import RunIdentity
from ovos_ray.track.spool import Spool

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doctor")
    small = synthetic.SyntheticConfig(height=48, width=64, num_frames=6)
    synthetic.generate(root / "dataset", seed=3, num_videos={"train": 3}, config=small)
    pack(open_dataset(root / "dataset"), root / "shards", labels="first", split="train")
    return root / "shards"


@pytest.fixture
def here(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copytree(packed, tmp_path / "shards")
    (tmp_path / ".rayignore").write_text("shards\n")
    return tmp_path


def examine(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", "--tracking-uri", "", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_healthy_place_passes_and_is_left_as_it_was(here: Path, store: str, client: Any) -> None:
    before = sorted(path.name for path in here.iterdir())
    code, said = examine("--shards", "shards", "--recipe", "trainables.one_shot", "--tracking-uri", store)
    assert code == 0, said
    assert "✗" not in said
    index = json.loads((here / "shards" / "index.json").read_text())
    assert f"digest {index['digest']}" in said
    assert "3 videos in 1 file, 3 of 18 frames labelled" in said
    assert re.search(r"a clip of \d+ frames at \d+ pixels: [\d.]+ ms of one CPU here", said)
    assert "experiments, writable" in said
    assert re.search(r"a run of xmem-tiny keeps 3 checkpoints of \d+ MiB", said)
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (["--shards", "absent"], "no shards here", "ovos-ray pack"),
        (["--storage", "file/runs"], "NotADirectoryError|FileExistsError", ""),
        (["--tracking-uri", "http://127.0.0.1:9"], "tracking http.*(Exception|Error)", "mlflow server"),
        (["--tracking-uri", "sqlite:////proc/x/mlflow.db"], "cannot be written", "another tracking_uri"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(here: Path, arguments: list[str], said: str, remedy: str) -> None:
    (here / "file").write_text("")
    code, output = examine(*arguments)
    assert code == 1
    assert output.count("✗") == 1, "what is right passes beside it"
    assert re.search(said, output)
    assert remedy in output


def test_damaged_shards_are_found(here: Path) -> None:
    file = next((here / "shards").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    code, said = examine("--shards", "shards")
    assert code == 1
    assert "✗ shards shards" in said


def test_disk_too_small_for_the_checkpoints_of_a_run_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(here)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100 * 2**20))
    assert examine("--recipe", "trainables.one_shot")[0] == 0
    code, said = examine("--recipe", "trainables.one_shot.stcn")
    assert code == 1
    assert re.search(r"stcn keeps 3 checkpoints of 6\d\d MiB.*0\.1 GiB free", said)


def test_records_that_no_server_has_are_told_of(here: Path) -> None:
    spool = Spool(here / "runs" / "one" / "tracking", RunIdentity("http://127.0.0.1:9", "study", "one", "x"))
    spool.append("metrics", {"step": 1, "values": {"a": 1.0}})
    code, said = examine()
    assert code == 0, "a server that was away is no fault of this machine"
    assert "! unsent tracking records: 1 of 1 runs" in said
    assert "ovos-ray sync runs" in said


def test_large_job_package_is_found_and_wrong_only_where_there_is_a_cluster(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(here / "video.mp4", "wb") as file:
        file.truncate(200 * 2**20)
    code, said = examine()
    assert code == 0, said
    assert "! job package" in said
    assert "video.mp4 (200.0 MiB)" in said
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    code, said = examine()
    assert code == 1
    assert "✗ job package" in said
    assert "video.mp4 (200.0 MiB)" in said
    assert "/video.mp4" in said.partition("what to do")[2]


def test_cluster_that_does_not_answer_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    code, said = examine()
    assert code == 1
    assert "no Ray cluster answers at http://127.0.0.1:9" in said


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_speed_of_decoding_is_measured_with_and_without_ray(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovos_ray.on_ray.ingest._SECONDS", 1.0)
    code, said = examine("--shards", "shards", "--recipe", "trainables.one_shot", "--bench-ingest")
    assert code == 0, said
    speeds = [float(speed) for speed in re.findall(r"([\d.]+) clips/s", said)]
    assert len(speeds) == 2
    assert min(speeds) > 0.1
