"""Recipes hold the paper's values, are found by path, and studies leave out what cannot or need not be run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovos_ray.cli.app import app
from ovos_ray.cli.console import console
from ovos_ray.config import ExperimentConfig, override
from ovos_ray.config.digest import digest
from ovos_ray.config.recipes import list_recipes, make
from ovos_ray.errors import ConfigError
from ovos_ray.study.expand import expand
from ovos_ray.study.space import Range, SearchSpace

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY))


def test_every_recipe_and_study_can_be_made() -> None:
    recipes = list_recipes("trainables")
    assert {"trainables.one_shot", "trainables.one_shot.xmem"} <= {recipe.path for recipe in recipes}
    for recipe in recipes:
        assert recipe.summary
    names = [make(recipe.path, ExperimentConfig).name for recipe in recipes]
    assert len(set(names)) == len(names), "two recipes would share a run folder"
    for study in list_recipes("search_spaces"):
        space = make(study.path, SearchSpace)
        trials, _ = expand(space)
        assert len({trial.config.name for trial in trials}) == len(trials)


@pytest.mark.parametrize(
    ("path", "n", "batch", "optimizer", "decay", "rate"),
    [
        ("trainables.one_shot.stcn", 3, 8, "adam", 1e-7, 1e-5),
        ("trainables.one_shot.xmem", 8, 8, "adamw", 0.05, 1e-5),
        ("trainables.one_shot.cutie", 8, 16, "adamw", 0.001, 1e-4),
    ],
)
def test_one_shot_recipes_hold_the_values_of_section_4_1(
    path: str, n: int, batch: int, optimizer: str, decay: float, rate: float
) -> None:
    config = make(path, ExperimentConfig)
    assert config.data.clip_length == n
    assert config.data.batch_size == batch
    assert config.optimizer.name == optimizer
    assert config.optimizer.weight_decay == decay
    assert config.optimizer.learning_rate == rate
    assert config.optimizer.decay_factor == 0.1
    assert config.method.name == "one_shot"


# From the published code of each network, to which section 4.1 defers.
@pytest.mark.parametrize(
    ("network", "multipliers", "intervals", "crop", "objects", "entropy", "dice", "epsilon", "multiplier", "norm"),
    [
        ("stcn", (("davis2017", 5),), (), 384, 2, "bootstrapped", False, 1e-8, 1.0, None),
        ("xmem", (("davis2017", 5),), (), 384, 3, "bootstrapped", True, 1e-8, 1.0, None),
        ("cutie", (("davis2017", 5),), (("davis2017", 2),), 480, 3, "points", True, 1e-6, 0.1, 3.0),
    ],
)
@pytest.mark.parametrize("kind", ["one_shot", "fully_supervised"])
def test_recipes_hold_the_values_of_the_published_code(
    kind: str,
    network: str,
    multipliers: tuple[tuple[str, int], ...],
    intervals: tuple[tuple[str, int], ...],
    crop: int,
    objects: int,
    entropy: str,
    dice: bool,
    epsilon: float,
    multiplier: float,
    norm: float | None,
) -> None:
    config = make(f"trainables.{kind}.{network}", ExperimentConfig)
    data, loss, optimizer = config.data, config.method.loss, config.optimizer
    assert [Path(path).name.removesuffix("_all") for path in data.shards] == ["youtube_vos2018", "davis2017"]
    assert (data.multipliers, data.frame_intervals) == (multipliers, intervals)
    assert (data.crop_size, data.max_objects) == (crop, objects)
    assert (loss.cross_entropy, loss.dice, loss.top_fraction, loss.num_points) == (entropy, dice, 0.15, 12_544)
    assert (loss.warm_up_start, loss.warm_up_end) == (20_000, 70_000)
    assert (optimizer.epsilon, optimizer.backbone_multiplier, optimizer.clip_norm) == (epsilon, multiplier, norm)
    stage_0 = make(f"trainables.static_pretraining.{network}", ExperimentConfig)
    assert (stage_0.optimizer.epsilon, stage_0.data.multipliers) == (1e-8, (("BIG_small", 5), ("HRSOD_small", 5)))
    assert stage_0.method.loss.num_points == (8192 if network == "cutie" else 12_544)
    for recipe in (config, stage_0):
        assert recipe.data.augmentation is not None
        last_phase = round(recipe.data.augmentation.frame_geometry_until * recipe.train.steps)
        assert last_phase == (100_000 if network == "xmem" and recipe is config else recipe.train.steps)


def test_ls_shows_every_path_whole_also_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 60)
    monkeypatch.setattr(console, "_force_terminal", True)
    shown = CliRunner().invoke(app, ["ls"]).stdout
    for recipe in list_recipes("trainables") + list_recipes("search_spaces"):
        assert f" {recipe.path} " in shown


def test_unknown_recipes_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*trainables.one_shot"):
        make("trainables.oneshot", object)
    for short, whole in [("one_shot", "trainables.one_shot"), ("clip_length.paper", "search_spaces.clip_length.paper")]:
        with pytest.raises(ConfigError) as error:
            make(short, object)
        assert error.value.remedy == f"did you mean {whole}?"
    with pytest.raises(ConfigError, match="`ovos-ray ls` lists what there is; a module of your own"):
        make("qqq.zzz", object)
    with pytest.raises(ConfigError, match="has no recipe 'xmen'"):
        make("trainables.one_shot.xmen", object)
    with pytest.raises(ConfigError, match="makes a ExperimentConfig, a SearchSpace is needed"):
        make("trainables.one_shot", SearchSpace)


def test_a_users_own_module_works_without_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from ovos_ray.config import ExperimentConfig\n"
        "def mine() -> ExperimentConfig:\n    '''My own.'''\n    return ExperimentConfig(name='mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert make("mine", ExperimentConfig).name == "mine"


def space(**changes: object) -> SearchSpace:
    return SearchSpace(name="s", trainable="trainables.one_shot", **changes)  # type: ignore[arg-type]


def test_a_study_is_the_product_of_its_axes_and_seeds() -> None:
    made = space(axes={"method.backward": ("T-step", "2-step"), "data.clip_length": (4, 5)}, seeds=(0, 1, 2))
    trials, skipped = expand(made, ExperimentConfig())
    assert len(trials) == 12
    assert not skipped
    assert len({digest(trial.config) for trial in trials}) == 12
    assert trials[0].config.storage == "runs/s"


def test_one_step_on_recurrent_networks_is_left_out_with_the_papers_reason() -> None:
    made = space(axes={"network.name": ("stcn-tiny", "xmem-tiny"), "method.backward": ("1-step", "2-step")}, seeds=(0,))
    trials, skipped = expand(made, override(ExperimentConfig(), {"data.clip_length": 5}))
    assert [trial.name for trial in trials] == [
        "stcn-tiny 1-step seed 0",
        "stcn-tiny 2-step seed 0",
        "xmem-tiny 2-step seed 0",
    ]
    assert skipped[0].name == "xmem-tiny 1-step"
    assert "section 3.4" in skipped[0].reason


def test_t_step_and_2_step_of_three_frames_are_run_once() -> None:
    made = space(axes={"method.backward": ("T-step", "2-step")}, seeds=(0,))
    trials, skipped = expand(made, override(ExperimentConfig(), {"data.clip_length": 3}))
    assert len(trials) == 1
    assert "computes the same as" in skipped[0].reason


def test_joint_axes_set_several_keys() -> None:
    made = space(axes={"network.name data.clip_length": (("stcn-tiny", 3), ("xmem-tiny", 8))}, seeds=(0,))
    trials, _ = expand(made, ExperimentConfig())
    assert [(t.config.network.name, t.config.data.clip_length) for t in trials] == [("stcn-tiny", 3), ("xmem-tiny", 8)]


def test_ranges_are_logarithmic_where_asked() -> None:
    assert Range(1e-5, 1e-3, log=True).at(0.5) == pytest.approx(1e-4)
    assert Range(0.0, 2.0).at(0.25) == 0.5
