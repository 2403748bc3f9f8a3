"""What `show`, `ls` and the shell's TAB say of settings, and that what they write is read back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from tiny_study import make_dataset, tiny_config
from typer.testing import CliRunner

from ovos_ray import networks
from ovos_ray.cli.app import app
from ovos_ray.config import ExperimentConfig, override, to_dict
from ovos_ray.config.explain import explain
from ovos_ray.config.files import find_config
from ovos_ray.config.recipes import make
from ovos_ray.config.roles import settings_of
from ovos_ray.config.strategies import NETWORKS
from ovos_ray.errors import CheckpointError, ConfigError
from ovos_ray.run.extend import extended
from ovos_ray.run.here import fit_here
from ovos_ray.run.request import RunRequest
from ovos_ray.train.run_folder import RunFolder


def verb(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("words", [("ls",), ("show", "trainables.one_shot"), ("show", "search_spaces.networks")])
def test_looking_around_needs_no_torch(words: tuple[str, ...]) -> None:
    code = (
        f"import sys; sys.argv = ['ovos-ray', *{words!r}]\nfrom ovos_ray.cli.app import app\n"
        "app(standalone_mode=False)\nassert not {'torch', 'ray', 'mlflow', 'pyarrow.dataset'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, capture_output=True)


def test_the_facts_of_networks_are_those_of_the_networks() -> None:
    assert set(NETWORKS) <= set(networks.names())
    for name, facts in NETWORKS.items():
        network = networks.build(name)
        found = (type(network).__name__, network.recurrent, networks.has_imagenet(network))
        assert (facts.family, facts.recurrent, facts.imagenet) == found


def test_every_setting_is_explained() -> None:
    assert list(explain()) == list(settings_of(ExperimentConfig))
    assert [key for key, meaning in explain().items() if not meaning.text] == []
    text = verb("show", "trainables.one_shot", "method.backward=T-step", "--explain")
    assert "* method.backward = 'T-step'   (default '2-step'; one of T-step, 1-step" in text
    assert "  method.reference = 'predicted'   (one of predicted, empty, true)\n    What the backward" in text
    assert "at least 1" in text.partition("train.steps = ")[2].partition("\n")[0]


def test_nothing_is_folded_in_a_pipe() -> None:
    config = make("trainables.one_shot.xmem", ExperimentConfig)
    text = verb("show", "trainables.one_shot.xmem")
    assert f"{config.data.max_skip!r}\n" in text
    assert re.search(r"^search_spaces\.backward_strategy  +\S.*\.$", verb("ls"), re.MULTILINE)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_show_writes_is_read_back(tmp_path: Path, form: str) -> None:
    recipe = "trainables.one_shot.cutie"
    words = ["data.augmentation=none", "evaluation.also=a=B,c=D:train"]
    file = tmp_path / f"run.{form}"
    file.write_text(verb("show", recipe, *words, "--format", form))
    assert find_config(str(file)) == override(make(recipe, ExperimentConfig), words)
    # The last line is the digest; whole numbers may come back as 4.0, which is the same.
    assert verb("show", str(file)).splitlines()[-1] == verb("show", recipe, *words).splitlines()[-1]
    study = verb("show", "search_spaces.smoke", "--format", form)
    assert study.count("T-step") == 3  # the trial, its run, and its setting
    if form == "json":
        assert len(json.loads(study)["trials"]) == 2


def test_settings_of_a_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("recipe: trainables.one_shot\ndata.clip_length: 4\ntrain:\n  steps: 7\n")
    wanted = override(make("trainables.one_shot", ExperimentConfig), {"data.clip_length": 4, "train.steps": 7})
    assert find_config(str(file)) == wanted
    for text, message in (
        ("train: {stpes: 7}", r"run\.yaml: unknown configuration key 'train\.stpes'\n.*train\.steps"),
        ("config: {5: 7}", "unknown configuration key '5'"),
        ("- a", "holds a list, no settings"),
        ("a: [", "not a configuration"),
        ("!!python/object/apply:os.system ['true']", "not a configuration"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            find_config(str(file))
    for missing in ("no.yaml", "no-run"):
        with pytest.raises(ConfigError, match="cannot be read"):
            find_config(str(tmp_path / missing))
    (tmp_path / "config.json").write_text(json.dumps({"config": to_dict(wanted)}))
    assert find_config(str(tmp_path)) == wanted


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("train trainables.one_s", "trainables.one_shot.xmem"),
        ("train trainables.one_shot method.back", "method.backward="),
        ("train trainables.one_shot method.reference=e", "method.reference=empty"),
        ("train trainables.one_shot method.reference = e", "empty"),  # as bash splits it
        ("train trainables.one_shot method.reference =", "true"),
        ("sweep search_spaces.smo", "search_spaces.smoke"),
    ],
)
def test_the_shell_completes_recipes_keys_and_choices(typed: str, offered: str) -> None:
    words = ["ovos-ray", *typed.split()]
    asked = {"_OVOS_RAY_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = CliRunner().invoke(app, [], prog_name="ovos-ray", env=asked)
    values = done.output.split()
    assert offered in values
    assert len(values) < 40


def test_an_unknown_verb_is_met_with_a_known_one() -> None:
    assert "Did you mean 'train'" in CliRunner().invoke(app, ["trian"]).output


def test_pack_says_what_it_found_and_which_layout_it_looks_like(tmp_path: Path) -> None:
    from ovos_ray.data.folders.open import open_dataset
    from ovos_ray.errors import DataError

    make_dataset(tmp_path)
    with pytest.raises(DataError, match="found Annotations/, ImageSets/, JPEGImages/") as error:
        open_dataset(tmp_path / "dataset", "youtube_vos2019")
    assert error.value.remedy == "it looks like layout davis2017: add --layout davis2017"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found nothing;"):
        open_dataset(tmp_path / "empty", "davis2017")


def test_a_finished_run_is_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = override(tiny_config(tmp_path, steps=5), {"evaluation.root": None, "tracking_uri": ""})
    longer = override(config, {"train.steps": 8})
    with pytest.raises(ConfigError, match="holds no finished run"):
        extended(longer)
    fit_here(RunRequest(config, "test", "short"))
    with pytest.raises(ConfigError, match=r"train\.steps = 5, and .* has 5 already"):
        extended(config)
    with pytest.raises(CheckpointError, match=r"differs in more than its length: seed 0 there, 1 here"):
        extended(override(longer, {"seed": 1}))
    Path("tiny.json").write_text(json.dumps({"config": to_dict(config)}))
    output = verb("train", "tiny.json", "train.steps=8", "--extend", "--no-ray")
    assert "resuming at step 5" in output
    folder = RunFolder.at(config.storage, "one-shot-to-8")
    # Its curriculum is constant and its rate has no schedule, so that this is the longer run, bit for bit.
    whole = fit_here(RunRequest(override(longer, {"name": "whole"}), "test", "whole"))
    content = [one.storage.read("network.safetensors") for one in (folder, whole.folder)]
    assert content[0] == content[1]
    assert folder.config().segment is not None
    assert "nothing to do" in verb("train", "tiny.json", "train.steps=8", "--extend", "--no-ray")


def test_the_command_is_kept_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from ovos_ray.cli.options import trial_tags

    monkeypatch.setattr(sys, "argv", ["/usr/bin/ovos-ray", "train", "a", "note=two words"])
    command = trial_tags()["ovos.command"]
    assert command == "ovos-ray train a 'note=two words'"
    assert os.sep not in command
