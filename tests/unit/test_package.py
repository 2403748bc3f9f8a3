"""The wheel is whole: it runs in an empty folder, beside another package called `datasets`, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow

SIZES = ["data.crop_size=48", "data.batch_size=1", "train.steps=2", "train.num_threads=1", "tracking_uri="]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, and a package that calls itself `datasets`."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("ovos_ray", "trainables", "search_spaces", "datasets"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    install = ["install", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(source)]
    subprocess.run([*pip, *install], check=True)
    assert sorted(path.name for path in site.iterdir() if path.suffix != ".dist-info") == ["bin", "ovos_ray"]
    (site / "datasets").mkdir()
    (site / "datasets" / "__init__.py").write_text("raise SystemExit('another package was imported')\n")
    return site


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def run(site: Path, folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, "-m", "ovos_ray", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_lists_shows_copies_packs_and_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    make = (
        "from ovos_ray.data.folders import synthetic as s; s.generate('d', seed=3, num_videos={'train': 2, 'val': 1})"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, env=environment, check=True)
    listed = run(installed, tmp_path, "ls")
    assert all(name in listed for name in ("trainables.one_shot.xmem", "search_spaces.smoke", "youtube_vos2019"))
    assert "Tables 1 and 2" in run(installed, tmp_path, "show", "trainables.one_shot.xmem")
    assert "T-step" in run(installed, tmp_path, "show", "search_spaces.smoke")
    run(installed, tmp_path, "pack", "synthetic", "--root", "d", "--out", "shards")
    run(installed, tmp_path, "cp", "trainables.one_shot", "mine.py")
    assert run(installed, tmp_path, "show", "mine.one_shot") == run(installed, tmp_path, "show", "trainables.one_shot")
    run(installed, tmp_path, "train", "mine.one_shot", "--no-ray", "data.shards=shards", *SIZES)
    assert (tmp_path / "runs" / "one-shot-tiny" / "network.safetensors").is_file()


def test_a_folder_of_the_users_adds_to_the_recipes_and_comes_first(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "trainables").mkdir()
    recipe = "from trainables import one_shot\n\ndef {name}():\n    '''Mine.'''\n    return one_shot.cutie()\n"
    (tmp_path / "trainables" / "mine.py").write_text(recipe.format(name="mine"))
    (tmp_path / "trainables" / "synthetic.py").write_text(recipe.format(name="synthetic"))
    code = """
from ovos_ray.config.recipes import list_recipes, make
print(*(recipe.path for recipe in list_recipes("trainables")))
print(*(make(f"trainables.{name}", object).name for name in ("mine", "synthetic")))
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    listed, made = done.stdout.splitlines()
    assert {"trainables.mine", "trainables.synthetic", "trainables.one_shot.xmem"} <= set(listed.split())
    assert "trainables.synthetic.static_only" not in listed
    assert made == "one-shot-cutie one-shot-cutie"


def test_a_job_of_a_checkout_brings_the_recipes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: Path
) -> None:
    from ovos_ray.on_ray.job_environment import job_environment

    monkeypatch.chdir(tmp_path)
    (sent,) = job_environment()["py_modules"]
    theirs, ours = files(Path(sent)), files(installed / "ovos_ray")  # pages and tables of the report too
    assert theirs == ours
    assert Path("recipes/datasets/davis2017.py") in theirs


def test_the_version_is_said_once_and_cited() -> None:
    import ovos_ray

    assert run(REPOSITORY, REPOSITORY, "--version") == f"ovos-ray {ovos_ray.__version__}\n"
    assert f"\nversion: {ovos_ray.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()


def test_another_system_is_told_what_it_lacks() -> None:
    code = "import sys; sys.platform = 'win32'\nimport ovos_ray"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "needs Linux or macOS" in done.stderr
    assert "WSL 2" in done.stderr
