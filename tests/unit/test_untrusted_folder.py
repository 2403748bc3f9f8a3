"""Standing in a folder of a stranger's runs none of its code; only recipes that were named are code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from davis_folder import make_davis

from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.files import find_config
from ovos_ray.config.recipes import list_recipes, make
from ovos_ray.config.stored import to_store
from ovos_ray.data.folders.open import describe
from ovos_ray.errors import ConfigError
from ovos_ray.run.request import config_from
from ovos_ray.track.servers import remember

ALARM = "open(__file__ + '.ran', 'w').close()\n"
TRAP = ALARM + "raise SystemExit('a stranger was here')\n"
SHADOWS = ("PIL", "numpy", "typer", "rich", "pyarrow", "cv2", "zlib_ng", "torch", "mlflow", "jinja2", "tomllib", "csv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset with modules of all kinds in it, each of which leaves a file when it is run."""
    folder = make_davis(tmp_path / "davis")
    for name in (*SHADOWS, "datasets/evil", "datasets/davis2017", "trainables/evil", "search_spaces/evil"):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""A trap."""\n{TRAP}\ndef evil():\n    """Evil."""\n')
    return folder


def ran(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.ran"))


@pytest.mark.parametrize("module", [True, False], ids=["python -m", "script"])
def test_no_verb_runs_what_lies_in_the_current_folder(folder: Path, tmp_path: Path, module: bool) -> None:
    script = tmp_path / "bin/ovos-ray"
    script.parent.mkdir()
    script.write_text("from ovos_ray.cli import main\nmain()\n")
    command = [sys.executable, "-m", "ovos_ray"] if module else [sys.executable, str(script)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for verb in (
        ["ls"],
        ["pack", "davis2016", "--layout", "davis2017", "--root", ".", "--out", "../shards"],
        ["verify", "../shards"],
        ["predict", "--baseline", "copy", "--root", ".", "--split", "train", "--out", "../out"],
        ["evaluate", "--predictions", "../out", "--annotations", ".", "--sequences", "v0,v2"],
    ):
        done = subprocess.run([*command, *verb], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ran(folder) == []
    assert "trainables.one_shot" in subprocess.run(
        [*command, "ls"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    ).stdout  # fmt: skip


def test_descriptions_are_not_those_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text(TRAP)
    (tmp_path / "datasets/davis2017.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    assert describe("davis2017").title.startswith("DAVIS")
    assert ran(tmp_path) == []


def test_a_recipe_is_found_here_and_finds_its_neighbours_and_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_sizes.py").write_text("STEPS = 7\n")
    (tmp_path / "json.py").write_text(TRAP)
    (tmp_path / "my_recipe.py").write_text(
        ALARM + "from ovos_ray.config import ExperimentConfig, TrainConfig\nimport my_sizes\n"
        "def my_recipe():\n    '''Mine.'''\n    import json, my_late_sizes\n"
        "    return ExperimentConfig(train=TrainConfig(steps=my_sizes.STEPS + my_late_sizes.MORE))\n"
    )
    (tmp_path / "my_late_sizes.py").write_text("MORE = 4\n")
    monkeypatch.chdir(tmp_path)
    before = sys.path[:]
    assert make("my_recipe", ExperimentConfig).train.steps == 11
    assert sys.path == before
    assert ran(tmp_path) == ["my_recipe.py.ran"]


def test_listing_reads_what_importing_would_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths and summaries that are read from the files are those of the functions in the imported modules."""
    monkeypatch.chdir(REPOSITORY)
    for package in ("trainables", "search_spaces"):
        for recipe in list_recipes(package):
            module, _, name = recipe.path.rpartition(".")
            imported = __import__(recipe.path if module == package else module, fromlist=["_"])
            assert recipe.summary == getattr(imported, name).__doc__.partition("\n")[0]


@pytest.mark.parametrize("recipe", ["evil", "trainables.evil", "trainables.one_shot", "webbrowser.main", "trainables"])
def test_files_of_settings_run_no_code(folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """A stranger's file may lie beside a stranger's module, also one that hides one of this program."""
    (folder / "evil.py").write_text(TRAP)
    (folder / "trainables/one_shot.py").write_text(TRAP)
    (folder / "run.yaml").write_text(f"recipe: {recipe}\n")
    (folder / "pretrained.yaml").write_text(f"pretrain.recipe: {recipe}\n")
    stored = to_store(override(ExperimentConfig(), {"pretrain.recipe": recipe}))
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text(json.dumps(stored))
    monkeypatch.chdir(folder)
    for source in ("run.yaml", "pretrained.yaml", "./run"):
        with pytest.raises(ConfigError, match="files of settings run no code"):
            find_config(source)
    assert ran(folder) == []


def test_a_file_of_settings_may_start_from_what_came_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the user has recipes of their own beside it."""
    monkeypatch.chdir(folder)
    (folder / "run.yaml").write_text("recipe: trainables.one_shot\ntrain.steps: 7\n")
    assert find_config("run.yaml").train.steps == 7
    assert ran(folder) == []


@pytest.mark.parametrize(
    "text", ["a: &a {b: *a}", "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} " + "{" + ", ".join(
        f"k{j}: *a{i - 1}" for j in range(9)) + "}" for i in range(1, 12))])], ids=["itself", "a billion"]
)  # fmt: skip
def test_a_file_that_repeats_itself_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"holds itself|more than 10,000 settings"):
        find_config(str(tmp_path / "run.yaml"))


def test_a_file_of_settings_sends_nothing_to_a_server_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "run.yaml"
    for uri in ("http://stranger.invalid:5000", "sqlite:////etc/x.db", "sqlite:///../x.db"):
        file.write_text(f"tracking_uri: {uri}\n")
        with pytest.raises(ConfigError, match="no run of yours was tracked"):
            config_from("run.yaml", ["seed=3"])
        assert config_from("run.yaml", [f"tracking_uri={uri}"]).tracking_uri == uri
    remember("http://mine:5000")
    for uri in ("http://mine:5000", "sqlite:///mine.db", "''"):
        file.write_text(f"tracking_uri: {uri}\n")
        config_from("run.yaml")
